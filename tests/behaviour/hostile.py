"""Documents that try to break the component: hand-made ones, and a hypothesis strategy for any number more."""

import unicodedata
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from spacy.tokens import Doc, Span
from spacy.vocab import Vocab

NAMES = ["Maria", "Kolb", "Dresden", "Nordbank", "lives", "in", "the", "2-1", ".", ","]
# Of each kind what a tokenizer, a normalizer or a printing of text may stumble over
CHARACTERS = {
    "combining marks without a base": ["\u0301", "\u0301\u0302\u0303", "\u20dd", "\u0489", "\u093f"],
    "right to left": ["שלום", "مرحبا", "\u202eabc\u202c", "\u200f", "\u2067x\u2069", "ﷺ"],
    "emoji": ["👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "🇩", "\u200d", "\ufe0f", "#️⃣", "🏴󠁧󠁢󠁥󠁮󠁧󠁿"],
    "control": ["\x00", "\x07", "\x1b[31m", "\x7f", "\x85", "\x1c", "\ud7ff"],
    "of no width": ["\u200b", "\u200c", "\ufeff", "\u2060", "\u00ad", "\u180e", "\u034f"],
    "space": [" ", "\t", "\n", "\r\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u2029", "   \n\n  "],
    "replacement, unassigned, private": ["\ufffd", "\ufffe", "\uffff", "\ue000", "\U000f0000", "\U0010ffff", "\u0378"],
    "of every plane": [chr(plane << 16 | 0x123) for plane in range(17)],
    "Han, kana, hangul": ["東京都", "ひらがな", "한국어", "각", "㍿", "豈"],
    "folded into others": ["ß", "İ", "ﬀ", "①", "\uff21", "ǅ", "\u017f", "Å", "A\u030a", "℃", "㎏", "½"],
    "special pieces": ["[CLS]", "[SEP]", "[PAD]", "[UNK]", "[MASK]", "<s>", "</s>", "<unk>", "##ing", "▁", "Ġ"],
    "markup": ["<script>alert(1)</script>", "&amp;", "http://a.b/?c=d&e", "{{x}}", "'; DROP TABLE", "%s%n", "../../etc"],
    "long": ["a" * 5000, "ab-" * 700, "\u0301" * 600, "👍🏽" * 300, "9" * 1000, "." * 999],
}  # fmt: skip
WORDS = NAMES + [word for words in CHARACTERS.values() for word in words]


def any_word() -> st.SearchStrategy[str]:
    """A word of any characters but surrogates, which no text can hold; spaCy allows no empty one."""
    characters = st.characters(exclude_categories=["Cs"])
    return st.one_of(
        st.sampled_from(WORDS), st.sampled_from(NAMES), st.text(characters, min_size=1, max_size=12),
        st.tuples(st.sampled_from(WORDS[:-6]), st.sampled_from(WORDS[:-6])).map("".join),
    )  # fmt: skip


def make_doc(
    vocab: Vocab,
    words: Sequence[str],
    *,
    spaces: Sequence[bool] | None = None,
    sent_starts: Sequence[int] | None = None,
    ents: Sequence[tuple[int, int, str]] = (),
    blocked: Sequence[tuple[int, int]] = (),
    missing: bool = True,
) -> Doc:
    """Make a Doc.

    ents: preset entities, with a `kb_id`. blocked: spans that may not become part of one. missing: whether the other tokens
    are unannotated, rather than outside.
    """
    doc = Doc(vocab, words=list(words), spaces=None if spaces is None else list(spaces), sent_starts=sent_starts)
    spans = [Span(doc, start, end, label=label, kb_id="Q1") for start, end, label in ents]
    blocked_spans = [Span(doc, start, end) for start, end in blocked]
    if spans or blocked_spans or not missing:
        doc.set_ents(spans, blocked=blocked_spans, default="missing" if missing else "outside")
    return doc


@st.composite
def docs(draw: st.DrawFn, vocab: Vocab, max_words: int = 12) -> Doc:
    """A Doc with or without spaces, sentence starts, preset entities and blocked spans; it may be empty."""
    words = draw(st.lists(any_word(), max_size=max_words))
    n = len(words)
    flags = st.lists(st.booleans(), min_size=n, max_size=n)
    spaces = draw(st.none() | flags)
    sent_starts = draw(st.none() | st.lists(st.sampled_from([-1, 0, 1]), min_size=n, max_size=n))
    # Cuts between which every other stretch is an entity, blocked, or neither
    cuts = sorted(draw(st.sets(st.integers(0, n), max_size=6)))
    kinds = draw(st.lists(st.sampled_from(["", "", "PER", "NEW", "-"]), min_size=len(cuts), max_size=len(cuts)))
    stretches = list(zip(cuts, cuts[1:], kinds, strict=False))
    return make_doc(
        vocab,
        words,
        spaces=spaces,
        sent_starts=sent_starts,
        ents=[(start, end, kind) for start, end, kind in stretches if kind not in ("", "-")],
        blocked=[(start, end) for start, end, kind in stretches if kind == "-"],
        missing=draw(st.booleans()),
    )


def corpus(vocab: Vocab) -> list[Doc]:
    """The hand-made documents."""
    made = [make_doc(vocab, []), make_doc(vocab, [" "]), make_doc(vocab, ["\n"] * 50)]
    for words in CHARACTERS.values():
        made.append(make_doc(vocab, words))
        made.append(make_doc(vocab, [part for word in words for part in ("Maria", word, "Kolb")]))
        made.extend(make_doc(vocab, [word]) for word in words)
    names = ["Maria", "Kolb", " ", "lives", "\u200b", "in", "Dresden", "\n", "."]
    n = len(names)
    made += [
        make_doc(vocab, names, sent_starts=[1] + [-1] * (n - 1)),
        make_doc(vocab, names, sent_starts=[1] * n),
        make_doc(vocab, names, sent_starts=[0] * n),
        make_doc(vocab, names, ents=[(1, 4, "PER")]),  # over whitespace
        make_doc(vocab, names, ents=[(2, 3, "PER"), (7, 8, "NEW")]),  # whitespace alone
        make_doc(vocab, names, ents=[(0, n, "PER")]),
        make_doc(vocab, names, ents=[(i, i + 1, "PER") for i in range(n)]),
        make_doc(vocab, names, blocked=[(0, n)]),
        make_doc(vocab, names, blocked=[(0, 2), (6, 7)], ents=[(3, 4, "LOC")]),
        make_doc(vocab, names, missing=False),
        make_doc(vocab, ["Maria"] * 700),  # windows
        make_doc(vocab, [" "] * 3000 + ["Maria"] + ["\u200b"] * 3000),
        make_doc(vocab, ["Kolb", "x" * 1_000_000, "Dresden"]),
    ]
    # Each block of Unicode, 256 characters a Doc, as far as they are assigned
    for start in range(0, 0x110000, 256):
        chars = [chr(i) for i in range(start, start + 256) if unicodedata.category(chr(i)) not in ("Cn", "Cs", "Co")]
        if chars and not 0x3400 <= start < 0xD7A0 and not 0x17000 <= start < 0x18D00 and start < 0x20000:
            made.append(make_doc(vocab, chars))
    return made


def annotation(doc: Doc) -> tuple:
    """What an entity annotation says of each token."""
    return tuple((t.ent_iob_, t.ent_type_, t.ent_kb_id_) for t in doc)


def check(nlp, component, given: Sequence[Doc], *, overwrite: bool) -> None:
    """Predict on Docs in a batch and each alone, and check what may be said of any Doc.

    Every token has a row, of numbers or of -inf throughout; entities lie in their Doc, start and end with a token that has
    numbers, have one of the labels, do not overlap, and take nothing from those there were; the batch changes nothing.
    """
    labels = set(component.labels)
    before = [annotation(doc) for doc in given]
    old = [[(e.start, e.end, e.label_, e.kb_id_) for e in doc.ents] for doc in given]
    n_tags = len(component.tag_set)
    rows = component.model.predict(given) if any(len(doc) for doc in given) else [np.zeros((0, n_tags))] * len(given)
    assert [len(r) for r in rows] == [len(doc) for doc in given]
    for r in rows:
        assert np.isfinite(r).all(axis=1).tolist() == (~np.isneginf(r)).any(axis=1).tolist()
        assert not np.isnan(r).any()
    for doc, r, alone in zip(
        given, rows, [component.model.predict([doc])[0] if len(doc) else None for doc in given], strict=True
    ):
        if alone is not None:
            np.testing.assert_allclose(r, alone, atol=2e-4, err_msg=repr(doc.text[:100]))
    found = component.predict(given)
    assert [annotation(doc) for doc in given] == before, "predicting touches no Doc"
    for doc, r, entities, had in zip(given, rows, found, old, strict=True):
        last_end = 0
        for start, end, label, probability in entities:
            assert 0 <= probability <= 1
            assert last_end <= start < end <= len(doc)
            last_end = end
            assert label in labels
            assert np.isfinite(r[start]).all() and np.isfinite(r[end - 1]).all()
        gap = np.diff(np.sort(r[np.isfinite(r[:, 0])], axis=1)[:, -2:])
        if len(doc) and not (gap < 1e-3).any():  # no tie that a rounding could turn
            (alone,) = component.predict([doc])
            assert [e[:3] for e in alone] == [e[:3] for e in entities]
            np.testing.assert_allclose([e[3] for e in alone], [e[3] for e in entities], atol=1e-3)
        component.set_annotations([doc], [entities])
        entities = [e[:3] for e in entities]
        now = [(e.start, e.end, e.label_) for e in doc.ents]
        if overwrite:
            assert now == entities
        else:
            assert set(entities) <= set(now)
            assert [e for e in now if e not in entities] == [e[:3] for e in had if e[:3] not in entities]
            kept = {(e.start, e.end, e.label_): e.kb_id_ for e in doc.ents}
            assert all(kept[start, end, label] == kb_id for start, end, label, kb_id in had)
            assert not any(t.ent_iob_ == "" and t.ent_iob == 0 for t in doc) or not len(doc)
        assert all(t.ent_iob_ != "I" or (i and doc[i - 1].ent_type == t.ent_type) for i, t in enumerate(doc))
