"""Records in, blocks of word pieces out: each piece of the input stands in one block, once.

Words are cut into pieces as they are for training (`model/encoding.py`): spaCy's tokens, each on its own. The blocks are
packed as RoBERTa's FULL-SENTENCES (Liu et al. 2019, §4.2): filled up, across documents too, with a separator between two
documents; they end between words.
"""

import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray
from spacy.language import Language
from spacy.tokens import Doc
from tqdm import tqdm  # type: ignore[import-untyped]

from ..annotate.inputs import find_inputs
from ..annotate.readers import ReadSettings, read
from ..annotate.records import Chunk, Record, chunks
from ..data_faults import Kind
from ..model.encoding import PieceEncoder, Pieces

# What a piece is: the first of a word, a further one, or a special one, which is never masked
FIRST, FURTHER, SPECIAL = 1, 0, -1
# (n_pieces, 2): each piece, and which of the above it is
Rows = NDArray[np.int32]
# A longer text goes through the tokenizer in parts, which end at line breaks
MAX_CHARS = 100_000
CHUNK_RECORDS = 1000


class Blocks:
    """Blocks of pieces, as a dataset for torch.

    rows: the pieces of all blocks, one block after the other. spans: (n_blocks, 2), the rows of each block.
    epoch: the pass over the data; it decides, with the block's number, what is masked.
    """

    def __init__(self, rows: Rows, spans: NDArray[np.int64]) -> None:
        self.rows, self.spans, self.epoch = rows, spans, 0

    def __len__(self) -> int:
        return len(self.spans)

    def __getitem__(self, i: int) -> dict[str, Any]:
        start, end = self.spans[i].tolist()
        return {"rows": np.array(self.rows[start:end]), "key": (self.epoch, start)}

    def split(self, share: float, seed: int) -> tuple["Blocks", "Blocks"]:
        """Return the blocks without a random share of them, and that share; there is at least one block in each."""
        order = np.random.default_rng(seed).permutation(len(self))
        n_held_out = min(max(1, round(share * len(self))), len(self) - 1)
        return tuple(Blocks(self.rows, self.spans[np.sort(part)]) for part in np.split(order, [-n_held_out]))  # type: ignore[return-value]


def read_blocks(
    inputs: Iterable[str | Path],
    reading: ReadSettings,
    nlp: Language,
    encoder: PieceEncoder,
    window: int,
    file: IO[bytes],
    *,
    disable: bool = True,
) -> Blocks:
    """Read files, and write their blocks to an unbuffered file, which is mapped, so that memory does not grow with the text.

    inputs, reading: as for `annotate`. nlp: its tokenizer makes the words of texts; Docs have theirs. window: as for `pack`.
    disable: whether to show no progress bar.
    Raises ConversionError for input that cannot be read. Files and records without a text are skipped, with a warning.
    """
    found, left_out = find_inputs(inputs, reading.input_format)
    total = sum(item.size for item in found) if all(item.is_file for item in found) else None
    unknown, skipped = Kind("files of an unknown ending, skipped"), Kind("records without a text, skipped")
    for name in left_out:
        unknown.add(name)
    ends = [0]
    with tqdm(total=total, unit="B", unit_scale=True, disable=disable, leave=False, desc="Reading") as bar:

        def documents() -> Iterator[Iterator[Pieces]]:
            for chunk in chunks(read(found, reading), CHUNK_RECORDS, MAX_CHARS):
                yield from _documents(chunk, nlp, encoder, skipped)
                bar.update(chunk.records[-1].at - bar.n)

        for rows in pack(documents(), encoder, window):
            data = memoryview(rows.tobytes())
            while data:
                data = data[file.write(data) :]
            ends.append(ends[-1] + len(rows))
    for kind in (unknown, skipped):
        if kind.count:
            warnings.warn(str(kind), stacklevel=3)
    shape = (ends[-1], 2)
    rows = (
        np.memmap(file, np.int32, "r", shape=shape) if ends[-1] else np.empty(shape, np.int32)
    )  # none cannot be mapped
    return Blocks(rows, np.stack([ends[:-1], ends[1:]], axis=1).astype(np.int64))


def _documents(chunk: Chunk, nlp: Language, encoder: PieceEncoder, skipped: Kind) -> Iterator[Iterator[Pieces]]:
    zone = nlp.memory_zone()  # as in annotate/worker.py
    zone.__enter__()
    try:
        for record in chunk.records:
            if record.error is not None:
                skipped.add(f"{record.place}: {record.error}")
            else:
                yield (encoder.pieces([doc])[0] for doc in _docs(record, nlp))
    finally:
        zone.__exit__(None, None, None)


def _docs(record: Record, nlp: Language) -> Iterator[Doc]:
    if isinstance(record.content, bytes):
        yield Doc(nlp.vocab).from_bytes(record.content)
        return
    text, start = record.content or "", 0
    while start < len(text):
        end = text.find("\n", start + MAX_CHARS) + 1 or len(text)
        yield nlp.tokenizer(text[start:end])
        start = end


def pack(documents: Iterable[Iterable[Pieces]], encoder: PieceEncoder, window: int) -> Iterator[Rows]:
    """Pack documents into blocks of at most `window` pieces, special ones included.

    A word that is longer than a block is cut; any other stands in one block as a whole.
    """
    prefix, suffix = _special(encoder.prefix), _special(encoder.suffix)
    separator = suffix  # [SEP] in BERT, </s> in RoBERTa
    capacity = window - len(prefix) - len(suffix)
    block: list[Rows] = []
    room = capacity
    for document in documents:
        is_new = True
        for pieces in document:
            rows = _rows(pieces)
            start = 0
            while start < len(rows):
                lead = separator if is_new and block else separator[:0]
                # The end of the last word that fits
                limit = max(start + room - len(lead), 0)
                end = int(pieces.offsets[np.searchsorted(pieces.offsets, limit, side="right") - 1])
                if end <= start and not block:
                    end = start + capacity
                if end > start:
                    block += [lead, rows[start:end]]
                    room -= len(lead) + end - start
                    start, is_new = end, False
                if start < len(rows):
                    yield np.concatenate([prefix, *block, suffix])
                    block, room = [], capacity
    if block:
        yield np.concatenate([prefix, *block, suffix])


def _rows(pieces: Pieces) -> Rows:
    rows = np.stack([pieces.ids, np.full_like(pieces.ids, FURTHER)], axis=1)
    first = pieces.offsets[:-1]
    rows[first[np.diff(pieces.offsets) > 0], 1] = FIRST
    return rows


def _special(ids: tuple[int, ...]) -> Rows:
    return np.array([(i, SPECIAL) for i in ids], dtype=np.int32).reshape(-1, 2)
