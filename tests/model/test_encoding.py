"""Pieces against transformers' tokenizers, windows and ownership against brute force, batches against their budget."""

import warnings
from itertools import chain, pairwise, product

import numpy as np
import pytest
import spacy
from hypothesis import given, settings
from hypothesis import strategies as st
from spacy.tokens import Doc

from spacy_bertner.formats.convert import read_conll
from spacy_bertner.model.checkpoint import load_tokenizer
from spacy_bertner.model.encoding import PieceEncoder, Pieces, pack

from ..conftest import ARCHITECTURES, SENTENCES, SHARED_DATA, reference_tokenizer

HARD_WORDS = [
    "London.", "U.S.", "naïve", "tokenization", "2-1", "\u200b", " ", "\n\n", "\ufeff", "\ufe0f", "\xad", "\ufffd",
    "[SEP]", "[CLS]", "<s>", "日本語", "👩‍👩‍👧", "e\u0301", "Ünder", "don't", "http://x.y/z?q=1", "ﬁ", "١٢٣", "x" * 90,
]  # fmt: skip


def encoder_for(folder, window=256, stride=224):
    tokenizer = load_tokenizer(str(folder))
    return PieceEncoder(
        tokenizer.backend_tokenizer, pad_id=tokenizer.pad_token_id, window=window, stride=stride
    ), tokenizer


def reference_pieces(tokenizer, words):
    """The piece ids of each word as transformers gives them for a sequence of words."""
    encoding = tokenizer(words, is_split_into_words=True, add_special_tokens=False)
    ids = [[] for _ in words]
    for i, word in zip(encoding["input_ids"], encoding.word_ids(), strict=True):
        ids[word].append(i)
    return ids


def word_pieces(pieces):
    return [pieces.ids[a:b].tolist() for a, b in zip(pieces.offsets, pieces.offsets[1:], strict=False)]


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_pieces_are_those_of_transformers(kind, checkpoint, nlp):
    encoder, _ = encoder_for(checkpoint(kind))
    tokenizer = reference_tokenizer(kind, checkpoint(kind))
    for words in [text.split() for text, _ in SENTENCES] + [HARD_WORDS]:
        pieces = encoder.pieces([Doc(nlp.vocab, words=words)])[0]
        assert word_pieces(pieces) == reference_pieces(tokenizer, words)


@settings(max_examples=200, deadline=None)
@given(words=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8), max_size=6))
def test_pieces_of_random_unicode(words, packaged_encoder):
    encoder, tokenizer = packaged_encoder
    pieces = encoder.pieces([Doc(spacy.blank("en").vocab, words=words)])[0]
    assert word_pieces(pieces) == (reference_pieces(tokenizer, words) if words else [])


@pytest.fixture(scope="module")
def packaged_encoder(checkpoint):
    return encoder_for(checkpoint("bert-uncased"))


def test_pieces_of_real_words(checkpoint, nlp):
    if not SHARED_DATA.exists():
        pytest.skip("needs ../shared/data")
    encoder, tokenizer = encoder_for(checkpoint("bert-uncased"))
    text = (SHARED_DATA / "wnut17" / "emerging.dev.conll").read_text(encoding="utf8")
    words = sorted({line.split("\t")[0] for line in text.split("\n") if line.strip()})
    assert len(words) > 4000
    assert word_pieces(encoder.pieces([Doc(nlp.vocab, words=words)])[0]) == reference_pieces(tokenizer, words)


def test_a_full_cache_changes_nothing(checkpoint, nlp):
    encoder, tokenizer = encoder_for(checkpoint())
    small = PieceEncoder(tokenizer.backend_tokenizer, pad_id=0, window=256, stride=192, max_cached=3)
    for text, _ in SENTENCES:
        doc = Doc(nlp.vocab, words=text.split())
        assert word_pieces(small.pieces([doc])[0]) == word_pieces(encoder.pieces([doc])[0])
        assert len(small._cache) <= 3 + len(doc)


def test_a_word_longer_than_a_window_is_cut_and_counted(checkpoint, nlp):
    encoder, _ = encoder_for(checkpoint("roberta"), window=16, stride=8)
    pieces = encoder.pieces([Doc(nlp.vocab, words=["a", "x" * 20_000, "b"])])[0]
    assert np.diff(pieces.offsets)[1] == 14
    assert pieces.n_cut == 1


def brute_force_owner(pieces, spans):
    """The window of each token in which the smaller of its contexts, in pieces, is greatest; the first of equals."""
    owners = []
    for offset in np.minimum(pieces.offsets[:-1], len(pieces.ids) - 1):
        context = [min(offset - start, end - 1 - offset) for start, end in spans]
        owners.append(int(np.argmax(context)))
    return owners


@st.composite
def piece_counts(draw):
    lengths = draw(st.lists(st.integers(0, 5), min_size=1, max_size=120))
    window = draw(st.integers(8, 24))
    stride = draw(st.integers(1, window - 1))
    sentences = draw(st.lists(st.booleans(), min_size=len(lengths), max_size=len(lengths)))
    return np.array(lengths), window, stride, np.array(sentences)


@settings(max_examples=300, deadline=None)
@given(piece_counts())
def test_windows_cover_and_own_every_token_once(window_encoder, drawn):
    lengths, window, stride, sentences = drawn
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    n = int(offsets[-1])
    pieces = Pieces(np.ones(n, int), np.ones(n, int), offsets, sentences, lengths > 0, 0)
    encoder = window_encoder(window, stride)
    windows = encoder.windows(pieces)
    if n == 0:
        assert windows == []
        return
    owned = [range(w.owned_start, w.owned_end) for w in windows]
    assert [i for tokens in owned for i in tokens] == list(range(len(lengths)))
    for w in windows:
        assert 0 < w.end - w.start <= encoder.capacity
        assert w.start in offsets and w.end in offsets  # cut between words
        assert w.start <= offsets[w.owned_start] and offsets[w.owned_end] <= w.end
    if n > encoder.capacity:
        overlap = max(encoder.capacity - stride, 0)
        spans = list(encoder._window_spans(pieces, overlap))
        assert all(a[1] >= b[0] and a[0] < b[0] for a, b in pairwise(spans))  # no gap, forwards
        starts = {0, *offsets[:-1][sentences]}
        for a, b in pairwise(spans):  # an overlap of whole words, except between sentences
            inside = offsets[(offsets > a[0]) & (offsets <= max(a[1] - overlap, a[0]))]
            after = offsets[offsets > a[0]]
            assert b[0] == (inside[-1] if len(inside) else after[0]) or (b[0] == a[1] and b[0] in starts)
        place = {(w.start, w.end): w for w in windows}
        for i, owner in enumerate(brute_force_owner(pieces, spans)):
            w = place[spans[owner]]
            assert w.owned_start <= i < w.owned_end
    # In training no piece is computed twice
    windows = encoder.windows(pieces, overlap=False)
    assert [w.start for w in windows] == [0, *(w.end for w in windows[:-1])] and windows[-1].end == n
    assert [i for w in windows for i in range(w.owned_start, w.owned_end)] == list(range(len(lengths)))
    assert all(w.end - w.start <= encoder.capacity for w in windows)


@pytest.fixture(scope="module")
def window_encoder(checkpoint):
    tokenizer = load_tokenizer(str(checkpoint()))
    return lambda window, stride: PieceEncoder(tokenizer.backend_tokenizer, pad_id=0, window=window, stride=stride)


def words_of_one_piece(n, sentences=()):
    sent_starts = np.zeros(n, bool)
    sent_starts[list(sentences)] = True
    return Pieces(np.ones(n, int), np.ones(n, int), np.arange(n + 1), sent_starts, np.ones(n, bool), 0)


def test_windows_by_hand(window_encoder):
    encoder = window_encoder(12, 6)  # room for 10 pieces, an overlap of 4
    windows = encoder.windows(words_of_one_piece(30))
    assert [(w.start, w.end) for w in windows] == [(0, 10), (6, 15), (11, 20), (16, 25), (21, 30)]
    assert [(w.owned_start, w.owned_end) for w in windows] == [(0, 8), (8, 13), (13, 18), (18, 23), (23, 30)]
    windows = encoder.windows(words_of_one_piece(26), overlap=False)
    assert [(w.start, w.end, w.owned_start, w.owned_end) for w in windows] == [(0, 9) * 2, (9, 18) * 2, (18, 26) * 2]


def test_windows_are_cut_between_sentences(window_encoder):
    encoder = window_encoder(14, 10)  # room for 12 pieces, an overlap of 2
    windows = encoder.windows(words_of_one_piece(30, [0, 8, 14, 25]))
    assert [(w.start, w.end) for w in windows] == [(0, 8), (8, 20), (18, 30)]  # 14 is in the first half of (8, 20)
    windows = encoder.windows(words_of_one_piece(20, [0, 7, 9, 12]))
    assert [(w.start, w.end) for w in windows] == [(0, 12), (12, 20)]
    windows = encoder.windows(words_of_one_piece(22, [0, 7, 9, 11]))
    assert [(w.start, w.end) for w in windows] == [(0, 11), (11, 22)]  # after 9, there would be three


def test_a_long_doc_is_owned_once(window_encoder, nlp):
    rng = np.random.default_rng(0)
    words = [w for text, _ in SENTENCES for w in text.split()]
    doc = Doc(nlp.vocab, words=rng.choice([*words, "\u200b"], size=5000).tolist())
    encoder = window_encoder(64, 48)
    owners = np.zeros(5000, int)
    for w in encoder.windows(encoder.pieces([doc])[0]):
        owners[w.owned_start : w.owned_end] += 1
    assert (owners == 1).all()


def test_batches(window_encoder, nlp):
    encoder = window_encoder(16, 12)
    rng = np.random.default_rng(1)
    words = [w for text, _ in SENTENCES for w in text.split()]
    docs = [Doc(nlp.vocab, words=rng.choice([*words, " "], size=n).tolist()) for n in (0, 3, 40, 1, 0, 17, 2)]
    docs.append(Doc(nlp.vocab, words=[" ", "\n"]))
    batches = list(encoder.encode(docs, 40))
    seen = np.concatenate([batch.rows for batch in batches])
    lengths = np.concatenate([np.diff(encoder.pieces([doc])[0].offsets) for doc in docs])
    assert sorted(seen) == np.flatnonzero(lengths).tolist()  # each token that has pieces, once
    all_pieces = [ids for doc in docs for ids in word_pieces(encoder.pieces([doc])[0])]
    for batch in batches:
        assert batch.input_ids.size <= 40
        assert (batch.input_ids[batch.attention_mask == 0] == 0).all()
        assert batch.input_ids.ravel()[batch.first].tolist() == [all_pieces[row][0] for row in batch.rows]
    groups = [places for places, _ in encoder.group(docs, 40)]
    assert sorted(i for group in groups for i in group) == list(range(len(docs)))
    for group in groups:
        assert len(list(encoder.encode([docs[i] for i in group], 40))) <= 1 or len(group) == 1


@given(st.lists(st.integers(1, 50), max_size=60), st.integers(50, 200))
def test_pack(lengths, budget):
    batches = pack(lengths, budget, overhead=10)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    assert all(len(batch) * max(lengths[i] for i in batch) <= budget for batch in batches)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 3)), min_size=1, max_size=8), st.integers(0, 30))
def test_pack_costs_the_least(items, overhead):
    widths, counts = [width for width, _ in items], [count for _, count in items]

    def cost(batches):
        return sum(max(widths[i] for i in batch) * sum(counts[i] for i in batch) + overhead for batch in batches)

    def fits(batch):
        return len(batch) == 1 or max(widths[i] for i in batch) * sum(counts[i] for i in batch) <= 20

    order = sorted(range(len(items)), key=lambda i: -widths[i])
    ways = []
    for is_cut in product((False, True), repeat=len(items) - 1):
        cuts = [0, *(i + 1 for i, cut in enumerate(is_cut) if cut), len(items)]
        ways.append([order[start:end] for start, end in pairwise(cuts)])
    found = pack(widths, 20, overhead, counts)
    assert sorted(chain.from_iterable(found)) == list(range(len(items)))
    assert all(map(fits, found))
    assert cost(found) == min(cost(way) for way in ways if all(map(fits, way)))


def test_little_padding_on_real_sentences(checkpoint, shared_data):
    encoder, _ = encoder_for(checkpoint("bert-uncased"))
    sentences = [sent.as_doc() for doc in read_conll(shared_data / "wikigold/train.conll") for sent in doc.sents]
    batches = list(encoder.encode(sentences[:1000], 1024, overhead=40))
    size, used = sum(batch.input_ids.size for batch in batches), sum(batch.attention_mask.sum() for batch in batches)
    assert used < size < 1.03 * used


def test_no_room_beside_the_special_pieces(window_encoder):
    with pytest.raises(ValueError, match=r"window: 2 leaves no room .* allowed are 3 and more"):
        window_encoder(2, 1)


@pytest.mark.parametrize("word", ["ab" * 40, "\u4e09" * 60, "https://example.org/" + "x/" * 50])
def test_a_word_that_is_cut_is_reported(word, checkpoint):
    """Once for a word; what fits gives no warning."""
    encoder, _ = encoder_for(checkpoint("bert"), window=12, stride=8)
    vocab = spacy.blank("en").vocab
    with pytest.warns(UserWarning, match=rf"A word of {len(word)} characters .* only its first 10 of"):
        encoder.pieces([Doc(vocab, words=["a", word, "b"])])[0]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encoder.pieces([Doc(vocab, words=[word, "b"])])[0]
