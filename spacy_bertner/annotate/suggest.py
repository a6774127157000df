"""What to annotate next: `python -m spacy bertner suggest`. How texts are chosen is in `uncertainty`."""

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from heapq import heappush, heapreplace
from pathlib import Path

import numpy as np
from spacy.attrs import LOWER
from spacy.language import Language
from spacy.tokens import Doc
from spacy.vocab import Vocab

from ..component import BertNER, components_of
from ..files import atomic_write, check_output_file
from ..formats.conll.options import ReadOptions
from ..formats.faults import ConversionError, Fault
from ..formats.source import Source, find_files
from ..formats.tools import is_annotated, read_texts
from .inputs import FORMATS, find_inputs
from .readers import ReadSettings, check, read
from .records import Record, chunks
from .run import BATCH_SIZE, CHUNK_CHARS
from .uncertainty import Candidate, choose, tag_entropies
from .worker import annotate_chunk, docs_or_reasons, make_input, memory_zone, prepared
from .writers import TASKS, find_writer

STRATEGIES = ("uncertainty", "random")
# Of this many times as many texts as are wanted, those with the highest entropy, the choice is made
POOL = 20


@dataclass
class Suggestions:
    """What was chosen, the best first.

    n_texts: of how many texts. n_excluded: texts left out as annotated already. n_repeated: texts that are there more than
    once. errors: place and reason of those that could not be processed.
    """

    chosen: list[Record] = field(default_factory=list)
    n_texts: int = 0
    n_excluded: int = 0
    n_repeated: int = 0
    errors: list[str] = field(default_factory=list)


def suggest(
    nlp: Language,
    inputs: Sequence[str | Path],
    output: Path,
    n: int,
    *,
    exclude: Sequence[Path] = (),
    strategy: str = "uncertainty",
    output_format: str | None = None,
    reading: ReadSettings | None = None,
    seed: int = 0,
    force: bool = False,
) -> Suggestions:
    """Choose the texts to annotate next, and write them as tasks with the pipeline's entities.

    nlp: a pipeline with a `bert_ner`, with or without a `spans_key`. inputs: as for `annotate`. output: a file.
    n: how many texts to choose. exclude: files or folders with texts that are annotated already, of any format that
        `annotate` or `convert` reads.
    strategy: "uncertainty", or "random", to compare. seed: for "random".
    output_format: "prodigy", "doccano" or "label-studio"; None for "label-studio" if the output ends in .json, and "prodigy"
        if not.

    Raises ConversionError for input that cannot be read, FileExistsError, ValueError, OSError.
    """
    if n < 1:
        raise ValueError(f"--n: {n} is less than 1")
    if strategy not in STRATEGIES:
        raise ValueError(f"--strategy: {strategy!r} is unknown; allowed are {', '.join(STRATEGIES)}")
    names = [kind.name for kind in TASKS]
    name = output_format or ("label-studio" if output.suffix == ".json" else "prodigy")
    if name not in names:
        raise ValueError(f"--format: {name!r} is unknown; allowed are {', '.join(names)}")
    components: list[BertNER] = list(components_of(nlp).values())
    if strategy == "uncertainty" and not components:
        raise ValueError("this pipeline has no bert_ner, which says how sure it is; --strategy random needs none")
    check_output_file(output, force=force, inputs=[*inputs, *exclude])
    reading = reading or ReadSettings()
    found, _ = find_inputs(inputs, reading.input_format, [output])
    check(found, reading)
    result = Suggestions()
    annotated = {_key(text) for path in _annotated(exclude) for text in _texts(path, reading)}
    records = _new(read(found, reading), annotated, result)
    with prepared(nlp):
        if strategy == "random":
            draw = random.Random(seed).random
            scored: Iterable[Candidate] = (Candidate(r, draw(), (), np.zeros(0)) for r in records)
            result.chosen = [candidate.record for candidate in _highest(scored, n, result)]
        else:
            scored = _scored(nlp, components, records, result)
            result.chosen = choose(_highest(scored, POOL * n, result), n)
        writer = find_writer(output, name)
        with atomic_write(output) as file:
            parts = chunks(result.chosen, BATCH_SIZE, CHUNK_CHARS["cpu"])
            rendered = [item for chunk in parts for item in annotate_chunk(nlp, chunk, writer)]
            writer.write((item.data for item in rendered), file)
        result.errors += [
            f"{r.place}: {item.error}" for r, item in zip(result.chosen, rendered, strict=True) if item.error
        ]
    return result


def _annotated(names: Sequence[Path]) -> Iterator[Path]:
    """Find the files behind names, folders and glob patterns; raise ConversionError for those that lead nowhere."""
    faults = ConversionError()
    paths, _ = find_files(names, lambda path: is_annotated(path) or path.suffix.lower() in FORMATS, faults)
    if None in paths:
        faults.add(Fault("-", None, "standard input cannot be left out: name a file"))
    if faults.total:
        raise faults
    return filter(None, paths)


def _texts(path: Path, reading: ReadSettings) -> Iterator[str]:
    """Read the texts of an annotated file, of an annotation tool or any format that `annotate` reads."""
    texts = read_texts(Source.from_path(path), ReadOptions(encoding=reading.encoding))
    return texts if texts is not None else filter(None, map(_text, read(find_inputs([path])[0], reading)))


def _text(record: Record) -> str | None:
    content = record.content
    return Doc(Vocab()).from_bytes(content).text if isinstance(content, bytes) else content


def _key(text: str) -> int:
    """What texts that differ in white space alone have in common."""
    return hash("".join(text.split()))


def _new(records: Iterable[Record], keys: set[int], result: Suggestions) -> Iterator[Record]:
    """Leave out texts that are annotated already, are empty or cannot be processed, and count them."""
    for record in records:
        result.n_texts += 1
        text = _text(record)
        if record.error is not None:
            result.errors.append(f"{record.place}: {record.error}")
        elif text is not None and _key(text) in keys:
            result.n_excluded += 1
        elif text is not None and text.strip():
            yield record


def _scored(
    nlp: Language, components: Sequence[BertNER], records: Iterable[Record], result: Suggestions
) -> Iterator[Candidate]:
    """Compute the entropies of texts. Of the pipeline only what the components need runs, and they annotate nothing."""
    last = max(nlp.pipe_names.index(component.name) for component in components)
    with nlp.select_pipes(disable=[*components_of(nlp), *nlp.pipe_names[last:]]):
        for chunk in chunks(records, BATCH_SIZE, CHUNK_CHARS["cpu"]):
            with memory_zone(nlp):
                pairs: list[tuple[Record, Doc]] = []
                found = docs_or_reasons(nlp, chunk.records, partial(make_input, nlp))
                for record, doc in zip(chunk.records, found, strict=True):
                    if isinstance(doc, Doc):
                        pairs.append((record, doc))
                    else:
                        result.errors.append(f"{record.place}: {doc}")
                docs = [doc for _, doc in pairs]
                of_components = zip(*(tag_entropies(component, docs) for component in components), strict=True)
                totals = [np.sum(parts, axis=0) for parts in of_components]  # (n_tokens,) each
                candidates = [
                    Candidate(record, float(entropies.mean()), doc.to_array(LOWER).tolist(), entropies)
                    for (record, doc), entropies in zip(pairs, totals, strict=True)
                ]
            yield from candidates


def _highest(candidates: Iterable[Candidate], n: int, result: Suggestions) -> list[Candidate]:
    """Return the n candidates with the highest gain, each text once, without having more of them in memory."""
    heap: list[tuple[float, int, Candidate]] = []
    keys: set[int] = set()
    for number, candidate in enumerate(candidates):
        key = _key(_text(candidate.record) or "")
        if key in keys:
            result.n_repeated += 1
            continue
        keys.add(key)
        item = (candidate.gain, -number, candidate)
        if len(heap) < n:
            heappush(heap, item)
        elif item > heap[0]:
            heapreplace(heap, item)
    return [candidate for *_, candidate in sorted(heap, reverse=True)]
