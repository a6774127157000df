"""CoNLL files and their relatives → Docs and DocBins, with nothing lost on the way.

Each input is read twice: once to find out how it is laid out, which tag scheme it follows and
whether anything is wrong with it, once to make Docs. An output is written only if every input of
the run can be converted, and only after what it holds has been counted against what was read.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import BinaryIO, cast

from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.language import Language
from spacy.tokens import Doc, DocBin
from spacy.util import get_lang_class
from spacy.vocab import Vocab

from .conll.docs import DocMaker, make_vocab, report_tags
from .conll.faults import ConversionError, Fault, FaultList
from .conll.layout import LayoutError
from .conll.ledger import Entry, FileRecord, Ledger, Misaligned
from .conll.options import ReadOptions
from .conll.reader import (
    Block,
    Counts,
    Report,
    Scan,
    iter_blocks,
    scan_source,
    words_checksum,
)
from .conll.schemes import TagParser, count_entities, count_faults, detect_scheme
from .conll.source import Progress, Source, UnreadableError, find_sources

__all__ = ["ConversionError", "Fault", "Ledger", "ReadOptions", "convert", "read_conll"]


@dataclass
class _Plan:
    """How to read one source, and how much is wrong with it."""

    source: Source
    options: ReadOptions
    parse: TagParser
    scan: Scan
    scheme: str | None
    layer_scheme: str | None
    n_faults: int

    def blocks(self, report: Report, keep_texts: bool = False, progress: Progress | None = None) -> Iterator[Block]:
        """Walk over the source again."""
        return iter_blocks(
            self.source,
            self.scan.layout,
            self.options.encoding,
            self.parse,
            report,
            Counts(),
            keep_texts=keep_texts,
            progress=progress,
        )

    def checked_blocks(self, report: Report, progress: Progress | None = None) -> Iterator[Block]:
        """Walk over the source again, reporting whatever has to be mended, tags included."""
        for block in self.blocks(report, keep_texts=True, progress=progress):
            report_tags(block, block.tags, self.parse, self.scheme, report)
            if self.scan.layout.layer is not None:
                report_tags(block, block.layer, self.parse, self.layer_scheme, report)
            yield block


def read_conll(
    source: str | Path | BinaryIO | Iterable[str],
    options: ReadOptions | None = None,
    *,
    vocab: Vocab | None = None,
) -> Iterator[Doc]:
    """Read a CoNLL file.

    source (str | Path | BinaryIO | Iterable[str]): A file's path, a binary stream, or lines.
    options (ReadOptions | None): How to read it; what is left out is found out.
    vocab (Vocab | None): For the Docs; by default that of a blank pipeline of `options.lang`.
    YIELDS (Doc): The documents. Raises ConversionError before the first one if anything is wrong
        with the file (with `repair`, only if it cannot be mended), and OSError.
    """
    options = options or ReadOptions()
    if isinstance(source, (str, Path)):
        opened = Source.from_path(Path(source))
    elif isinstance(source, (io.RawIOBase, io.BufferedIOBase)):
        name = str(getattr(source, "name", "<stream>"))
        opened = Source.from_stream(cast(BinaryIO, source), name)
    else:
        opened = Source.from_lines(cast(Iterable[str], source), options.encoding)
    with contextlib.closing(opened):
        faults = FaultList()
        plan = _plan(opened, options, faults)
        if plan is None:
            raise faults.error()
        maker = DocMaker(make_vocab(options.lang) if vocab is None else vocab, plan.scan, plan.parse, options)
        yield from maker.docs(plan.blocks(_ignore))


def convert(
    inputs: Iterable[str | Path],
    output_dir: str | Path,
    options: ReadOptions | None = None,
    *,
    merge: str | None = None,
    ledger: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ledger:
    """Convert CoNLL files to DocBins: `OUTPUT_DIR/<stem>.spacy` for each.

    inputs (Iterable[str | Path]): Files, folders, globs; `-` is standard input.
    output_dir (str | Path): Made if it is not there.
    options (ReadOptions | None): How to read them; what is left out is found out.
    merge (str | None): Write all documents to this one file in `output_dir` instead.
    ledger (str | Path | None): Where to write the ledger as JSON.
    progress (Callable[[int, int], None] | None): Called now and then with the bytes read since,
        and the bytes to read in all; each is read twice.
    RETURNS (Ledger): What was read, written, mended and dropped. Raises ConversionError if
        anything is wrong with an input; then nothing is written. Raises OSError.
    """
    options = options or ReadOptions()
    output_dir = Path(output_dir)
    vocab = make_vocab(options.lang)
    sources, left_out = find_sources(inputs)
    book = Ledger(left_out=left_out)
    with contextlib.ExitStack() as stack:
        for source in sources:
            stack.enter_context(contextlib.closing(source))
        outputs = _outputs(sources, output_dir, merge, ledger)
        staging = stack.enter_context(_Staging())
        faults = FaultList()
        merged = _Bin()
        # Made only where spaces are known, and once.
        pipeline = cache(lambda: get_lang_class(options.lang)(vocab=vocab))
        told: Progress | None = None
        if progress is not None:
            total = 2 * sum(source.size() for source in sources)
            told = partial(_tell, progress, total)
        for source, output in zip(sources, outputs, strict=True):
            plan = _plan(source, options, faults, told)
            if plan is None or faults.total:
                continue
            bin_ = merged if merge else _Bin()
            book.files.append(_fill(bin_, plan, vocab, output, pipeline, told))
            if not merge:
                staging.write(output, bin_.to_bytes())
        if faults.total:
            raise faults.error()
        if merge:
            staging.write(outputs[0], merged.to_bytes())
        if ledger is not None:
            text = json.dumps(book.to_dict(), ensure_ascii=False, indent=2)
            staging.write(Path(ledger), (text + "\n").encode("utf-8", "backslashreplace"))
        staging.commit()
    return book


def _tell(progress: Callable[[int, int], None], total: int, n_bytes: int) -> None:
    progress(n_bytes, total)


def _ignore(line: int, what: str, mended: str, text: str) -> None:
    """A report to nobody."""


def _plan(
    source: Source,
    options: ReadOptions,
    faults: FaultList,
    progress: Progress | None = None,
) -> _Plan | None:
    """Find out how to read a source. None if it cannot be; then the faults say why."""
    parse = TagParser(options.missing, bare=options.scheme == "IO")
    try:
        scan = scan_source(source, options, parse, progress)
    except LayoutError as err:
        faults.add(Fault(source.name, err.line, str(err), err.text))
        return None
    except (UnreadableError, OSError) as err:
        faults.add(Fault(source.name, None, str(err)))
        return None
    scheme = options.scheme or detect_scheme(scan.bigrams, parse)
    layer_scheme = options.scheme or detect_scheme(scan.layer_bigrams, parse)
    n_faults = scan.n_faults
    if scheme:
        n_faults += count_faults(scan.bigrams, parse, scheme)
    if layer_scheme:
        n_faults += count_faults(scan.layer_bigrams, parse, layer_scheme)
    plan = _Plan(source, options, parse, scan, scheme, layer_scheme, n_faults)
    if n_faults and not options.repair:

        def report(line: int, what: str, mended: str, text: str) -> None:
            faults.add(Fault(source.name, line, what, text))

        for _ in plan.checked_blocks(report):
            pass
        return None
    return plan


def _outputs(sources: list[Source], output_dir: Path, merge: str | None, ledger: str | Path | None) -> list[Path]:
    """Where each source goes. Raises ConversionError if two would go to the same place, or one
    to where an input is."""
    faults = FaultList()
    if output_dir.exists() and not output_dir.is_dir():
        faults.add(Fault(str(output_dir), None, "the output must be a folder, and this is a file"))
        raise faults.error()
    if merge is not None:
        if Path(merge).name != merge or merge in ("", ".", ".."):
            faults.add(Fault(merge, None, "the name of the merged file must be just a name"))
            raise faults.error()
        name = merge if merge.endswith(".spacy") else f"{merge}.spacy"
        outputs = [output_dir / name] * len(sources)
    else:
        outputs = [output_dir / f"{source.stem}.spacy" for source in sources]
        first: dict[str, Source] = {}
        for source, output in zip(sources, outputs, strict=True):
            other = first.setdefault(output.name, source)
            if other is not source:
                what = f"would overwrite {output}, the output of {other.name}"
                faults.add(Fault(source.name, None, f"{what}: convert them to two folders, or merge them"))
    read = {source.path.resolve() for source in sources if source.path is not None}
    written = [*dict.fromkeys(outputs), *([Path(ledger)] if ledger is not None else [])]
    for path in written:
        if path.resolve() in read:
            faults.add(Fault(str(path), None, "would overwrite an input"))
        elif path.is_dir():
            faults.add(Fault(str(path), None, "would be a file, and this is a folder"))
    if len({path.resolve() for path in written}) < len(written):
        faults.add(Fault(str(ledger), None, "would overwrite an output"))
    if faults.total:
        raise faults.error()
    return outputs


def _fill(
    bin_: _Bin,
    plan: _Plan,
    vocab: Vocab,
    output: Path,
    pipeline: Callable[[], Language],
    progress: Progress | None,
) -> FileRecord:
    """Put the documents of a source into a bin, and check that all of it went in."""
    scan, layout, options = plan.scan, plan.scan.layout, plan.options
    columns = {
        name: layout.column(getattr(layout, name))
        for name in ("word", "tag", "pos", "layer", "misc")
        if getattr(layout, name) is not None
    }
    if layout.tag is None:
        columns["tag"] = f"MISC, {layout.misc_key}="
    by = "marks" if scan.counts.marks else "file"
    if by == "file" and options.n_sents:
        by = f"every {options.n_sents} sentences"
    spaces = "given" if scan.spaces_given else "rules" if options.detokenize else "unknown"
    record = FileRecord(
        input=plan.source.name,
        output=str(output),
        layout=layout.kind,
        columns=columns,
        scheme=plan.scheme,
        documents_by=by,
        spaces=spaces,
        missing=scan.missing,
        comments=scan.counts.comments,
        multi_word_tokens=scan.counts.ranges,
        empty_nodes=scan.counts.empty_nodes,
        sentences=0 if scan.sentences_known else None,
    )

    def report(line: int, what: str, mended: str, text: str) -> None:
        record.entries.append(Entry(line, what, mended, text))

    for line, what, text in scan.counts.notes:
        report(line, what, "dropped", text)
    # Only with `repair` is there anything left to report.
    walk = plan.checked_blocks if plan.n_faults else plan.blocks
    blocks = walk(report, progress=progress)
    first = len(bin_)
    maker = DocMaker(vocab, scan, plan.parse, options)
    for doc in maker.docs(_counted(blocks, record)):
        record.documents += 1
        bin_.add(doc)
        if layout.layer is not None:
            record.layer.update(span.label_ for span in doc.spans[options.spans_key])
        if spaces != "unknown":
            record.misaligned.extend(_misaligned(doc, pipeline(), record.documents))
    record.entries.sort(key=lambda entry: entry.line)
    tokens, crc, record.entities = bin_.count(first, vocab)
    record.tokens = tokens
    entities = count_entities(scan.bigrams, plan.parse)
    layer = count_entities(scan.layer_bigrams, plan.parse)
    if (tokens, crc) != (scan.tokens, scan.words_crc):
        what = f"{scan.tokens} words read, {tokens} written, or not the same ones"
        raise ConversionError([Fault(plan.source.name, None, what)])
    if record.entities != entities or record.layer != layer:
        what = f"{entities + layer} entities read, {record.entities + record.layer} written"
        raise ConversionError([Fault(plan.source.name, None, what)])
    return record


def _counted(blocks: Iterable[Block], record: FileRecord) -> Iterator[Block]:
    for block in blocks:
        if record.sentences is not None:
            record.sentences += len(block.starts)
        yield block


def _misaligned(doc: Doc, nlp: Language, number: int) -> Iterator[Misaligned]:
    """Entities that have no tokens of their own in what the pipeline makes of the text."""
    # `nlp.make_doc` without its limit on the length of the text, which is about memory.
    tokenised = nlp.tokenizer(doc.text)
    for ent in doc.ents:
        if tokenised.char_span(ent.start_char, ent.end_char) is None:
            yield Misaligned(number, ent.start_char, ent.end_char, ent.label_, ent.text)


class _Bin:
    """A DocBin that can say what it holds."""

    def __init__(self) -> None:
        self.bin = DocBin()

    def __len__(self) -> int:
        return len(self.bin)

    def add(self, doc: Doc) -> None:
        self.bin.add(doc)

    def to_bytes(self) -> bytes:
        return self.bin.to_bytes()

    def count(self, first: int, vocab: Vocab) -> tuple[int, int, Counter[str]]:
        """Tokens, a checksum over the words, and entities by label, from one document on: out
        of the very arrays that are written."""
        attrs = self.bin.attrs
        orth, iob, type_ = attrs.index(ORTH), attrs.index(ENT_IOB), attrs.index(ENT_TYPE)
        string = vocab.strings.__getitem__
        tokens = crc = 0
        entities: Counter[str] = Counter()
        for array in self.bin.tokens[first:]:
            tokens += len(array)
            crc = words_checksum(list(map(string, array[:, orth].tolist())), crc)
            begins = array[array[:, iob] == 3, type_]
            entities.update(map(string, begins.tolist()))
        return tokens, crc, entities


class _Staging:
    """Writes files beside their final places, and moves all of them there at the end, or none."""

    def __init__(self) -> None:
        self.staged: list[tuple[Path, Path]] = []
        self.made: list[Path] = []

    def __enter__(self) -> _Staging:
        return self

    def __exit__(self, *error: object) -> None:
        for temporary, _ in self.staged:
            with contextlib.suppress(OSError):
                temporary.unlink()
        for folder in reversed(self.made):
            with contextlib.suppress(OSError):  # Not if there is anything in it.
                folder.rmdir()

    def write(self, path: Path, data: bytes) -> None:
        """Write what is to be at a path in the end."""
        missing = [folder for folder in (path.parent, *path.parent.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(exist_ok=True)
            self.made.append(folder)
        temporary = path.parent / f".{path.name}.{secrets.token_hex(4)}.tmp"
        self.staged.append((temporary, path))
        with temporary.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())

    def commit(self) -> None:
        """Move everything to its place."""
        for temporary, path in self.staged:
            os.replace(temporary, path)  # noqa: PTH105
        folders = {path.parent for _, path in self.staged}
        self.staged = []
        for folder in folders:
            with contextlib.suppress(OSError):  # Not every system can sync a folder.
                handle = os.open(folder, os.O_RDONLY)
                try:
                    os.fsync(handle)
                finally:
                    os.close(handle)
