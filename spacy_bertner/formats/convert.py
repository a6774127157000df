"""CoNLL files, their relatives and the files of annotation tools to Docs and DocBins and back, with nothing lost.

A CoNLL file is read twice: once to detect its layout and its tag scheme and to find whatever is wrong with it, once to make
Docs. An output is written only if every input can be converted, and only after its content has been counted against what
was read.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import BinaryIO, cast

from spacy.attrs import ENT_IOB, ENT_TYPE, ORTH
from spacy.tokens import Doc, DocBin
from spacy.vocab import Vocab

from ..files import atomic_folder, atomic_write, docbin_files
from .conll.docs import DocMaker, make_tokenizer, make_vocab
from .conll.layout import is_conll
from .conll.options import ReadOptions
from .conll.scan import OnRead, Scan, scan, words_checksum
from .docbin import DocSpool
from .faults import ConversionError, Fault
from .ledger import FileRecord, Ledger, Misaligned
from .source import Source, find_files
from .tools import FORMATS, fill, find_format, is_annotated
from .write import write_docs

__all__ = ["ConversionError", "Fault", "Ledger", "ReadOptions", "convert", "read_conll"]

Tokenize = Callable[[str], Doc]


def read_conll(
    source: str | Path | BinaryIO | Iterable[str], options: ReadOptions | None = None, *, vocab: Vocab | None = None
) -> Iterator[Doc]:
    """Read the documents of a CoNLL file.

    source: a path, a binary stream, or lines.
    options: how to read it; what is left out is detected.
    vocab: of the Docs; by default that of a blank pipeline of `options.lang`.
    Raises ConversionError before the first document if anything is wrong with the file (with `repair`, only if it cannot
    be repaired), and OSError. Warns of exceptions to the tag scheme that were repaired.
    """
    options = options or ReadOptions()
    if isinstance(source, (str, Path)):
        opened = Source.from_path(Path(source))
    elif isinstance(source, (io.RawIOBase, io.BufferedIOBase)):
        opened = Source.from_stream(cast(BinaryIO, source), str(getattr(source, "name", "<stream>")))
    else:
        opened = Source.from_lines(cast(Iterable[str], source), options.encoding)
    with contextlib.closing(opened):
        found = scan(opened, options)
        for warning in found.record.warnings:
            warnings.warn(f"{opened.name}: {warning}", stacklevel=2)
        yield from DocMaker(make_vocab(options.lang) if vocab is None else vocab, found).docs(found.blocks())


def convert(
    inputs: Iterable[str | Path],
    output_dir: str | Path,
    options: ReadOptions | None = None,
    *,
    to: str = "spacy",
    merge: str | None = None,
    ledger: str | Path | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ledger:
    """Convert annotated files to DocBins, `OUTPUT_DIR/<stem>.spacy` for each, or to files of an annotation tool.

    inputs: files, folders, glob patterns; `-` is standard input.
    output_dir: made if it does not exist. If it ends as the outputs do (`.spacy`) and is no folder, all documents are
        written to this file.
    options: how to read the files; what is left out is detected.
    to: "spacy", or a key of `FORMATS`; the inputs may then be `.spacy` files too.
    merge: the name of one file in `output_dir` for all documents instead.
    ledger: where to write the ledger as JSON.
    progress: called now and then with the number of bytes read since, and how many there are to read; each is read twice.
    Returns what was read, written, repaired and dropped. Raises ConversionError if anything is wrong with an input (then
    nothing is written), OSError, and ValueError for an unknown `to`.
    """
    options = options or ReadOptions()
    if to != "spacy" and to not in FORMATS:
        raise ValueError(f"to={to!r}: expected one of spacy, {', '.join(FORMATS)}")
    suffix = ".spacy" if to == "spacy" else FORMATS[to].suffix
    output_dir = Path(output_dir)
    if merge is None and suffix and output_dir.suffix == suffix and not output_dir.is_dir():
        output_dir, merge = output_dir.parent, output_dir.name
    vocab = make_vocab(options.lang)
    tokenizer = cache(lambda: make_tokenizer(options.lang, vocab))  # only needed where spaces are known
    faults = ConversionError()
    paths, left_out = find_files(inputs, lambda path: _is_wanted(path, to), faults)
    annotations = {path for path in paths if path is not None and path.suffix == ".ann"}
    paths = [
        path for path in paths if path is None or path.suffix != ".txt" or path.with_suffix(".ann") not in annotations
    ]
    if not paths and not faults.total:
        faults.add(Fault("convert", None, "no input given"))
    if faults.total:
        raise faults
    result = Ledger(left_out=left_out)
    with contextlib.ExitStack() as stack:  # closes the inputs, and puts the outputs in their places or deletes them
        sources = [stack.enter_context(contextlib.closing(_open(path))) for path in paths]
        outputs = _choose_outputs(sources, output_dir, merge, ledger, suffix)
        # Entered first, it takes its place last: there is never a new ledger beside old outputs
        ledger_file = None if ledger is None else stack.enter_context(atomic_write(Path(ledger)))
        total = 2 * sum(source.size() for source in sources)
        on_read = None if progress is None else lambda n_bytes: progress(n_bytes, total)
        docs = DocSpool()
        stack.callback(lambda: docs.close())
        for source, output in zip(sources, outputs, strict=True):
            if not merge:
                docs.close()
                docs = DocSpool()
            try:
                record = _read(docs, source, options, vocab, output, tokenizer, on_read, to)
            except ConversionError as err:
                faults.extend(err)
            except OSError as err:
                faults.add(Fault(source.name, None, str(err)))
            if faults.total:
                continue
            result.files.append(record)
            if not merge:
                try:
                    _write(stack, docs, to, output, [record], options.spans_key, vocab)
                except ConversionError as err:
                    faults.extend(err)
        if faults.total:
            raise faults
        if merge:
            _write(stack, docs, to, outputs[0], result.files, options.spans_key, vocab)
        if ledger_file is not None:
            text = json.dumps(result.to_dict(), ensure_ascii=False, indent=2) + "\n"
            ledger_file.write(text.encode("utf-8", "backslashreplace"))
    return result


def _is_wanted(path: Path, to: str) -> bool:
    return is_conll(path) or is_annotated(path) or (to != "spacy" and path.suffix == ".spacy")


def _read(
    docs: DocSpool,
    source: Source,
    options: ReadOptions,
    vocab: Vocab,
    output: Path,
    tokenizer: Callable[[], Tokenize],
    on_read: OnRead | None,
    to: str,
) -> FileRecord:
    """Add the documents of a file of any format to others. Raises ConversionError."""
    if to != "spacy" and source.path is not None and source.path.suffix == ".spacy":
        return _read_docbin(docs, source, source.path, vocab, output, options.spans_key)
    name = find_format(source, options)
    if name is None:
        return _fill(docs, scan(source, options, on_read), vocab, output, tokenizer, on_read)
    # These are read once
    twice = None if on_read is None else lambda n_bytes: on_read(2 * n_bytes)
    return fill(docs, source, name, options, tokenizer(), output, twice)


def _read_docbin(
    docs: DocSpool, source: Source, path: Path, vocab: Vocab, output: Path, spans_key: str | None
) -> FileRecord:
    """Add the documents of a DocBin to others."""
    (file,) = docbin_files(path)
    record = FileRecord(source.name, "spacy", {}, None, "records", "given", str(output), sentences=None)
    for doc in DocBin().from_disk(file).get_docs(vocab):
        docs.add(doc)
        record.documents += 1
        record.tokens += len(doc)
        record.entities.update(ent.label_ for ent in doc.ents)
        for key, group in doc.spans.items():
            if key == spans_key:
                record.layer.update(span.label_ for span in group)
            else:
                record.skipped[f"entities in doc.spans[{key!r}]"] += len(group)
        record.missing += sum(token.ent_iob == 0 for token in doc)
    return record


def _write(
    stack: contextlib.ExitStack,
    docs: DocSpool,
    to: str,
    output: Path,
    records: list[FileRecord],
    spans_key: str | None,
    vocab: Vocab,
) -> None:
    """Write documents to a file or folder that takes its place when the stack ends.

    records: of the files that the documents are from. Raises ConversionError if the documents do not fit the format, or if
    the entities written are not those read.
    """
    if to == "spacy":
        docs.write(stack.enter_context(atomic_write(output)))
        return
    source = records[0].input if len(records) == 1 else str(output)
    target = stack.enter_context(atomic_folder(output) if to == "brat" else atomic_write(output))
    read = Counter[str]()
    for record in records:
        read += record.entities if spans_key is None else record.layer
        other, what = (record.layer, "doc.spans") if spans_key is None else (record.entities, "doc.ents")
        record.skipped.update({f"entities in {what}": other.total()} if other else {})
    written = write_docs(docs.docs(vocab), to, target, source, spans_key, read)
    if written != read:
        what = f"{read.total()} entities read, {written.total()} written, or not the same ones"
        raise ConversionError([Fault(source, None, what)])


def _open(path: Path | None) -> Source:
    return Source.from_stream(sys.stdin.buffer, "<stdin>") if path is None else Source.from_path(path)


def _choose_outputs(
    sources: list[Source], output_dir: Path, merge: str | None, ledger: str | Path | None, suffix: str
) -> list[Path]:
    """Choose the output of each source. Raises ConversionError if one would overwrite another, an input or a folder."""
    faults = ConversionError()
    if output_dir.exists() and not output_dir.is_dir():
        faults.add(Fault(str(output_dir), None, "the output must be a folder, and this is a file"))
    elif merge is not None and (Path(merge).name != merge or merge in ("", ".", "..")):
        faults.add(Fault(merge, None, "the name of the merged file must be just a name"))
    outputs = [output_dir / f"{merge.removesuffix(suffix) if merge else source.stem}{suffix}" for source in sources]
    first: dict[Path, Source] = {}
    for source, output in zip(sources, outputs, strict=True):
        other = first.setdefault(output, source)
        if other is not source and merge is None:
            what = f"would overwrite {output}, the output of {other.name}: convert them to two folders, or merge them"
            faults.add(Fault(source.name, None, what))
    inputs = {source.path.resolve() for source in sources if source.path is not None}
    written = list(first) if ledger is None else [*first, Path(ledger)]
    for path in written:
        if path.resolve() in inputs:
            faults.add(Fault(str(path), None, "would overwrite an input"))
        elif path.is_dir() and (suffix or path not in first):
            faults.add(Fault(str(path), None, "would be a file, and this is a folder"))
        elif not suffix and path.exists() and path in first:
            faults.add(Fault(str(path), None, "exists already: name another folder, or delete it"))
    if len({path.resolve() for path in written}) < len(written):
        faults.add(Fault(str(ledger), None, "would overwrite an output"))
    if faults.total:
        raise faults
    return outputs


def _fill(
    docs: DocSpool, found: Scan, vocab: Vocab, output: Path, tokenizer: Callable[[], Tokenize], on_read: OnRead | None
) -> FileRecord:
    """Add the documents of a file to others. Raises ConversionError if anything is lost, compared with what was read."""
    record, first = found.record, docs.cut()
    record.output = str(output)
    layer: Counter[str] = Counter()
    # Only with `repair` is there anything left to report
    blocks = found.blocks(on_read, report=record.entries.append if found.n_faults else None)
    for doc in DocMaker(vocab, found).docs(blocks):
        record.documents += 1
        docs.add(doc)
        layer.update(span.label_ for span in doc.spans.get(found.options.layer_key, ()))
        if record.spaces != "unknown":
            record.misaligned.extend(_misaligned(doc, tokenizer(), record.documents))
    record.entries.sort(key=lambda entry: entry.line)
    tokens, words_crc, entities = _count(docs, first, vocab)
    if (tokens, words_crc) != (record.tokens, found.words_crc):
        raise found.source.error(f"{record.tokens} words read, {tokens} written, or not the same ones", line=None)
    if (entities, layer) != (record.entities, record.layer):
        n_read, n_written = (record.entities + record.layer).total(), (entities + layer).total()
        raise found.source.error(f"{n_read} entities read, {n_written} written, or not the same ones", line=None)
    return record


def _misaligned(doc: Doc, tokenize: Tokenize, number: int) -> Iterator[Misaligned]:
    """Find the entities that do not align with the tokens that the pipeline makes of the text."""
    # Without the limit of `nlp.make_doc` on the length of the text, which is about memory
    tokenised = tokenize(doc.text)
    for ent in doc.ents:
        if tokenised.char_span(ent.start_char, ent.end_char) is None:
            yield Misaligned(number, ent.start_char, ent.end_char, ent.label_, ent.text)


def _count(docs: DocSpool, first: int, vocab: Vocab) -> tuple[int, int, Counter[str]]:
    """Count tokens and entities by label, and make a checksum of the words, from one part on.

    All of them from the very arrays that are written.
    """
    string = vocab.strings.__getitem__
    tokens = crc = 0
    entities: Counter[str] = Counter()
    for docbin in docs.bins(first):
        orth, iob, type_ = map(docbin.attrs.index, (ORTH, ENT_IOB, ENT_TYPE))
        for array in docbin.tokens:  # (n_tokens, n_attrs)
            tokens += len(array)
            crc = words_checksum(list(map(string, array[:, orth].tolist())), crc)
            entities.update(map(string, array[array[:, iob] == 3, type_].tolist()))
    return tokens, crc, entities
