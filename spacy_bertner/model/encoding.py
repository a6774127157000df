"""Docs in, packed batches of word pieces out: words, pieces, windows, batches. NumPy only; nothing about labels.

Each word is cut into pieces on its own, so that every piece belongs to one spaCy token. A Doc with more pieces than a window
holds is covered by overlapping windows; each token is owned by the window in which it has the most context, the rule of
`_check_is_max_context` in Devlin et al.'s `run_squad.py`. The windows of all Docs are sorted by length and packed into
batches with a maximum number of pieces, padding included.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from spacy.attrs import ORTH, SENT_START
from spacy.tokens import Doc
from spacy.vocab import Vocab
from tokenizers import Tokenizer

from .orthography import ORTHOGRAPHY, ORTHOGRAPHY_VERSION, orthographic_class

Ints1d = NDArray[np.int64]
Ints2d = NDArray[np.int64]


class Window(NamedTuple):
    """Consecutive pieces of a Doc that the encoder sees at once.

    start, end: its pieces, counted in the Doc, without special pieces.
    owned_start, owned_end: the tokens whose scores are taken from it, counted in the Doc.
    """

    start: int
    end: int
    owned_start: int
    owned_end: int


@dataclass(frozen=True)
class Pieces:
    """The word pieces of one Doc.

    ids, orthography: (n_pieces,), the pieces and the orthographic class of the word of each.
    offsets: (n_tokens + 1,); the pieces of token i are those from offsets[i] to offsets[i + 1].
    sent_starts: (n_tokens,), True where a sentence is known to start.
    has_row: (n_tokens,), True for tokens that have pieces and a visible character: those an entity can start and end with.
    n_cut: number of words longer than a window, of which only the first pieces are kept.
    """

    ids: NDArray[np.int32]
    orthography: NDArray[np.int8]
    offsets: Ints1d
    sent_starts: NDArray[np.bool_]
    has_row: NDArray[np.bool_]
    n_cut: int


@dataclass(frozen=True)
class Batch:
    """Windows of similar length, padded to the longest.

    input_ids, attention_mask, orthography: (n_windows, n_pieces).
    first: (n_rows,), the index of the first piece of each owned token, in the flattened (n_windows * n_pieces).
    rows: (n_rows,), the index of that token, counted over all Docs.
    """

    input_ids: Ints2d
    attention_mask: Ints2d
    orthography: Ints2d
    first: Ints1d
    rows: Ints1d

    def halves(self) -> list[tuple["Batch", Ints1d]]:
        """Return both halves of the windows, each with the positions of its rows among those of this batch."""
        n_windows, n_pieces = self.input_ids.shape
        middle = n_windows // 2
        halves = []
        for start, end in ((0, middle), (middle, n_windows)):
            places = np.flatnonzero((self.first >= start * n_pieces) & (self.first < end * n_pieces))
            half = Batch(
                self.input_ids[start:end],
                self.attention_mask[start:end],
                self.orthography[start:end],
                self.first[places] - start * n_pieces,
                self.rows[places],
            )
            halves.append((half, places))
        return halves


class EncodedDocs(list[Doc]):
    """Docs with their pieces and windows, so that an update makes these only once.

    pieces, windows: those of each Doc.
    """

    def __init__(self, docs: Sequence[Doc], pieces: Sequence[Pieces], windows: Sequence[Sequence[Window]]) -> None:
        super().__init__(docs)
        self.pieces, self.windows = pieces, windows

    def select(self, places: Sequence[int]) -> "EncodedDocs":
        """Return the Docs at some positions."""
        docs, pieces, windows = ([part[i] for i in places] for part in (self, self.pieces, self.windows))
        return EncodedDocs(docs, pieces, windows)  # type: ignore[arg-type]


class PieceEncoder:
    """Turns words into pieces, and Docs into windows and batches, with a cache of the pieces of each word.

    tokenizer: a tokenizer of the library `tokenizers`.
    pad_id: the piece to pad with.
    window: maximum number of pieces in a window, special pieces included.
    stride: number of pieces from the start of one full window to the start of the next, where they overlap.
    document_context: whether windows cross sentence boundaries; if not, each sentence has windows of its own, provided that
        the Doc has sentence boundaries.
    orthography_version: the definition of the orthographic classes, see `ORTHOGRAPHY_VERSION`.
    max_cached: maximum number of words in the cache; when it is full, all but those of the current Docs are dropped.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        pad_id: int,
        window: int,
        stride: int,
        document_context: bool = True,
        orthography_version: int = ORTHOGRAPHY_VERSION,
        max_cached: int = 200_000,
    ) -> None:
        self.orthography_version = orthography_version
        # A tokenizer.json may ask for truncation and padding (all-MiniLM-L6-v2's does)
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self.prefix, self.suffix = special_pieces(tokenizer)
        self.pad_id = pad_id
        self.window = window
        self.document_context = document_context
        self.capacity = window - len(self.prefix) - len(self.suffix)
        if self.capacity < 1:
            raise ValueError(
                f"window: {window} leaves no room beside the {len(self.prefix) + len(self.suffix)} special pieces"
                f" of the tokenizer; allowed are {window - self.capacity + 1} and more"
            )
        self._overlap = max(self.capacity - stride, 0)
        self._max_cached = max_cached
        # orth -> (piece ids, orthographic class, whether pieces were cut off). When full it is replaced, not cleared, since
        # other threads may be reading it.
        self._cache: dict[int, tuple[tuple[int, ...], int, bool]] = {}

    def pieces(self, docs: Sequence[Doc]) -> list[Pieces]:
        """Cut the words of Docs into pieces, each word on its own."""
        if not docs:
            return []
        arrays = [doc.to_array([ORTH, SENT_START]) for doc in docs]
        bounds = np.cumsum([0] + [len(array) for array in arrays]).tolist()
        orths, sent_starts = np.concatenate(arrays).T  # (n_tokens,)
        found, first, word = np.unique(orths, return_index=True, return_inverse=True)
        entries = self._entries(docs, found.tolist(), np.searchsorted(bounds, first, side="right") - 1)
        n_pieces = np.fromiter((len(ids) for ids, _, _ in entries), dtype=np.int64, count=len(entries))
        classes = np.fromiter((cls for _, cls, _ in entries), dtype=np.int8, count=len(entries))[word]
        is_cut = np.fromiter((cut for _, _, cut in entries), dtype=bool, count=len(entries))
        lengths = n_pieces[word]
        offsets = np.concatenate([[0], np.cumsum(lengths)])  # (n_tokens + 1,)
        # The place of each piece among those of the words in `found`
        source = np.repeat((np.cumsum(n_pieces) - n_pieces)[word] - offsets[:-1], lengths) + np.arange(offsets[-1])
        pool = np.fromiter(chain.from_iterable(ids for ids, _, _ in entries), np.int32, count=n_pieces.sum())
        ids, orthography = pool[source], np.repeat(classes, lengths)
        # The head scores the first piece of a word, so a word without pieces has no scores. Byte-level tokenizers have
        # pieces for whitespace too, which are context but not tagged
        has_row = (lengths > 0) & (classes != ORTHOGRAPHY.index("blank"))
        n_cut = np.concatenate([[0], np.cumsum(is_cut[word])]) if is_cut.any() else np.zeros(len(orths) + 1, int)
        is_start = sent_starts == 1  # 0 if it is not known, -1 inside (as uint64)
        return [
            Pieces(
                ids[offsets[start] : offsets[end]],
                orthography[offsets[start] : offsets[end]],
                offsets[start : end + 1] - offsets[start],
                is_start[start:end],
                has_row[start:end],
                int(n_cut[end] - n_cut[start]),
            )
            for start, end in pairwise(bounds)
        ]

    def _entries(
        self, docs: Sequence[Doc], orths: list[int], places: Ints1d
    ) -> list[tuple[tuple[int, ...], int, bool]]:
        """Return what the cache has on each word, after adding what it lacks; places: a Doc that has the word."""
        cache = self._cache
        missing = [i for i, orth in enumerate(orths) if orth not in cache]
        if missing:
            if len(cache) + len(missing) > self._max_cached:
                cache = {orth: cache[orth] for orth in orths if orth in cache}
            for i in missing:
                cache[orths[i]] = self._word(docs[places[i]].vocab, orths[i])
            self._cache = cache
        return [cache[orth] for orth in orths]

    def _word(self, vocab: Vocab, orth: int) -> tuple[tuple[int, ...], int, bool]:
        encoding = self._tokenizer.encode([vocab.strings[orth]], is_pretokenized=True, add_special_tokens=False)
        ids = encoding.ids
        if len(ids) > self.capacity:
            warnings.warn(
                f"A word of {len(vocab.strings[orth])} characters is longer than a window: the encoder sees only its first "
                f"{self.capacity} of {len(ids)} pieces. Text without spaces needs a tokenizer that splits it into words",
                stacklevel=2,
            )
        shape = orthographic_class(vocab, orth, self.orthography_version)
        return tuple(ids[: self.capacity]), shape, len(ids) > self.capacity

    def cut_words(self, doc: Doc) -> list[int]:
        """Return the positions of the words longer than a window, of which only the first pieces are kept."""
        if not self.pieces([doc])[0].n_cut:
            return []
        return [token.i for token in doc if self._word(doc.vocab, token.orth)[2]]

    def windows(self, pieces: Pieces, *, overlap: bool = True) -> list[Window]:
        """Cover the pieces of a Doc with windows, cut between words, and between sentences if these are known.

        overlap: whether windows overlap that are not cut between sentences.
        Returns the windows in order. Every token is owned by exactly one, except in a Doc (without `document_context`, a
        sentence) that has no pieces, and so no window.
        """
        if self.document_context:
            return self._cover(pieces, overlap)
        n_tokens = len(pieces.offsets) - 1
        windows = []
        for first, last in pairwise(np.unique([0, *np.flatnonzero(pieces.sent_starts), n_tokens]).tolist()):
            start, end = pieces.offsets[first], pieces.offsets[last]
            sentence = Pieces(
                pieces.ids[start:end],
                pieces.orthography[start:end],
                pieces.offsets[first : last + 1] - start,
                pieces.sent_starts[first:last],
                pieces.has_row[first:last],
                n_cut=0,
            )
            windows += [
                Window(w.start + start, w.end + start, w.owned_start + first, w.owned_end + first)
                for w in self._cover(sentence, overlap)
            ]
        return windows

    def _cover(self, pieces: Pieces, overlap: bool) -> list[Window]:
        n_pieces, n_tokens = len(pieces.ids), len(pieces.offsets) - 1
        if n_pieces == 0:
            return []
        if n_pieces <= self.capacity:
            return [Window(0, n_pieces, 0, n_tokens)]
        spans = list(self._window_spans(pieces, self._overlap if overlap else 0))
        position = np.minimum(pieces.offsets[:-1], n_pieces - 1)
        most = np.full(n_tokens, -1, dtype=np.int64)
        owner = np.zeros(n_tokens, dtype=np.int64)
        for i, (start, end) in enumerate(spans):
            first, last = np.searchsorted(position, [start, end])
            context = np.minimum(position[first:last] - start, end - 1 - position[first:last])
            better = context > most[first:last]
            most[first:last][better] = context[better]
            owner[first:last][better] = i
        bounds = np.searchsorted(owner, np.arange(len(spans) + 1))
        return [
            Window(start, end, int(bounds[i]), int(bounds[i + 1]))
            for i, (start, end) in enumerate(spans)
            if bounds[i] < bounds[i + 1]
        ]

    def _window_spans(self, pieces: Pieces, overlap: int) -> Iterator[tuple[int, int]]:
        """Yield the first piece and the last + 1 of each window, for a Doc that needs more than one.

        Windows are about equally long, as attention takes time by the square of their length, and as few as that allows. A
        window ends with a sentence, if one ends in its second half, and the next one starts there; if not, they overlap.
        """
        n_pieces = len(pieces.ids)
        words = np.unique(pieces.offsets)  # where a window may be cut, including the end
        sentences = np.unique(np.append(pieces.offsets[:-1][pieces.sent_starts], n_pieces))

        def last_cut(low: int, high: int) -> int:
            """Return the last place between words in (low, high], or the first one after `low`."""
            last, first = np.searchsorted(words, [high, low], side="right")
            return int(words[max(last - 1, first)])

        start = 0
        while (rest := n_pieces - start) > self.capacity:
            step = self.capacity - overlap
            # How many windows there have to be after this one, and the length of each if all are equal
            n_more = -(-(rest - self.capacity) // step)
            length = -(-(rest + n_more * overlap) // (n_more + 1))
            low, high = np.searchsorted(sentences, [start + length // 2, start + self.capacity], side="right")
            ends = sentences[low:high]
            # After a shorter window, there would have to be one more
            if (enough := ends[ends >= start + rest - self.capacity - (n_more - 1) * step]).size:
                ends = enough
            if ends.size:
                end = next_start = int(ends[np.abs(ends - start - length).argmin()])
            else:
                # No word is longer than the capacity, but one may be longer than the others allow
                end = last_cut(start, start + length)
                next_start = last_cut(start, max(end - overlap, start))
            yield start, end
            start = next_start
        yield start, n_pieces

    def encoded(self, docs: Sequence[Doc], *, overlap: bool = True) -> EncodedDocs:
        """Return the Docs with their pieces and windows (see `windows`), or `docs` itself if it has them already."""
        if isinstance(docs, EncodedDocs):
            return docs
        pieces = self.pieces(docs)
        return EncodedDocs(docs, pieces, [self.windows(of_doc, overlap=overlap) for of_doc in pieces])

    def encode(self, docs: Sequence[Doc], max_batch_pieces: int, overhead: int = 0) -> Iterator[Batch]:
        """Turn Docs into batches of at most `max_batch_pieces` pieces each, padding included (see `pack`).

        Yields each batch on demand: while a GPU computes one, the next is made.
        """
        encoded = self.encoded(docs)
        windows = [(i, window) for i, of_doc in enumerate(encoded.windows) for window in of_doc]
        n_special = self.window - self.capacity
        widths = [window.end - window.start + n_special for _, window in windows]
        token_offsets = np.cumsum([0] + [len(doc) for doc in docs])
        for packed in pack(widths, max_batch_pieces, overhead):
            yield self._batch([windows[i] for i in packed], encoded.pieces, token_offsets)

    def _batch(self, windows: list[tuple[int, Window]], encoded: Sequence[Pieces], token_offsets: Ints1d) -> Batch:
        n_prefix, n_special = len(self.prefix), self.window - self.capacity
        shape = (len(windows), max(window.end - window.start for _, window in windows) + n_special)
        input_ids = np.full(shape, self.pad_id, dtype=np.int64)
        attention_mask = np.zeros(shape, dtype=np.int64)
        orthography = np.zeros(shape, dtype=np.int64)
        first, rows = [], []
        for i, (doc, window) in enumerate(windows):
            pieces, end = encoded[doc], window.end - window.start + n_prefix
            input_ids[i, :n_prefix] = self.prefix
            input_ids[i, n_prefix:end] = pieces.ids[window.start : window.end]
            input_ids[i, end : end + len(self.suffix)] = self.suffix
            attention_mask[i, : end + len(self.suffix)] = 1
            orthography[i, n_prefix:end] = pieces.orthography[window.start : window.end]
            tokens = np.flatnonzero(pieces.has_row[window.owned_start : window.owned_end]) + window.owned_start
            first.append(pieces.offsets[tokens] - window.start + n_prefix + i * shape[1])
            rows.append(tokens + token_offsets[doc])
        return Batch(input_ids, attention_mask, orthography, np.concatenate(first), np.concatenate(rows))

    def group(
        self, docs: Sequence[Doc], max_batch_pieces: int, overhead: int = 0
    ) -> list[tuple[list[int], EncodedDocs]]:
        """Group Docs so that the windows of each group make one batch; a Doc over the budget is a group of its own.

        This is for training, where windows do not overlap: each word is learned once, and overlap would be computed twice.

        Returns for each group the positions of its Docs in `docs`, and these Docs with their pieces and windows.
        """
        encoded, n_special = self.encoded(docs, overlap=False), self.window - self.capacity
        widths = [max((w.end - w.start + n_special for w in of_doc), default=0) for of_doc in encoded.windows]
        n_windows = [len(of_doc) for of_doc in encoded.windows]
        return [(group, encoded.select(group)) for group in pack(widths, max_batch_pieces, overhead, n_windows)]


def special_pieces(tokenizer: Tokenizer) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids that the tokenizer puts before and after a single sequence ([CLS] and [SEP] in BERT)."""
    encoding = tokenizer.encode(["a"], is_pretokenized=True, add_special_tokens=True)
    content = [i for i, special in enumerate(encoding.special_tokens_mask) if not special]
    if not content:
        raise ValueError("name: the tokenizer has no piece for the letter 'a'; it does not seem to be a trained one")
    return tuple(encoding.ids[: content[0]]), tuple(encoding.ids[content[-1] + 1 :])


def pack(
    widths: Sequence[int], budget: int, overhead: int = 0, n_windows: Sequence[int] | None = None
) -> list[list[int]]:
    """Pack windows, longest first, into batches at the lowest total cost: their pieces, padding included, and `overhead`.

    The best cut of the sorted windows into batches is found by dynamic programming, as a paragraph is broken into lines
    (Knuth and Plass 1981).

    widths: the number of pieces of each item.
    budget: maximum number of pieces in a batch, all windows padded to the longest; a longer item is a batch of its own.
    overhead: the constant cost of a batch, in pieces.
    n_windows: how many windows each item consists of, the longest of that width; None for one each.
    Returns one list per batch with the positions of its items in `widths`.
    """
    order = np.argsort(-np.asarray(widths, dtype=np.int64), kind="stable")
    n = len(order)
    counts = np.ones(n, dtype=np.int64) if n_windows is None else np.asarray(n_windows, dtype=np.int64)[order]
    before = np.concatenate([[0], np.cumsum(counts)])  # windows in the items up to each
    cost = np.full(n + 1, np.iinfo(np.int64).max)  # of the first i items
    cost[0] = 0
    start = np.zeros(n + 1, dtype=np.int64)  # of the last batch of the first i items
    for i, width in enumerate(np.asarray(widths)[order].tolist()):
        most = before[i] + budget // max(width, 1)
        last = max(int(np.searchsorted(before, most, side="right")) - 1, i + 1)
        ends = slice(i + 1, last + 1)
        costs = cost[i] + (before[ends] - before[i]) * width + overhead
        better = costs < cost[ends]
        cost[ends][better] = costs[better]
        start[ends][better] = i
    batches = []
    end = n
    while end:
        batches.append(order[start[end] : end].tolist())
        end = int(start[end])
    return batches[::-1]
