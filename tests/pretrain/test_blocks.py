"""Blocks: each piece of the input once, as transformers' tokenizer has it for words, and documents kept apart."""

import json
import tempfile

import numpy as np
import pytest
import spacy
from spacy.tokens import Doc, DocBin

from spacy_bertner.annotate.readers import ReadSettings
from spacy_bertner.formats.faults import ConversionError
from spacy_bertner.pretrain import blocks as blocks_module
from spacy_bertner.pretrain.blocks import FIRST, SPECIAL, read_blocks

from ..conftest import SENTENCES, reference_tokenizer
from .conftest import DEMO, make_encoder

TEXTS = [words for words, _ in SENTENCES]


def read(inputs, folder, window=32, reading=None, nlp=None):
    with tempfile.TemporaryFile(buffering=0) as file:
        blocks = read_blocks(
            inputs, reading or ReadSettings(), nlp or spacy.blank("en"), make_encoder(folder), window, file
        )
        blocks.rows = np.array(blocks.rows)
    return blocks


def reference_pieces(tokenizer, words):
    return tokenizer(words, is_split_into_words=True, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize("kind", ["bert", "bert-uncased", "roberta", "xlm-roberta", "distilbert", "deberta-v2"])
@pytest.mark.parametrize("window", [8, 17, 64, 512])
def test_each_piece_stands_in_one_block_once(kind, window, checkpoint, tmp_path):
    folder = checkpoint(kind)
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in TEXTS), encoding="utf8")
    blocks = read([path], folder, window)
    tokenizer = reference_tokenizer(kind, folder)
    tokenize = spacy.blank("en").tokenizer
    expected = [reference_pieces(tokenizer, [token.text for token in tokenize(text)]) for text in TEXTS]
    found = [piece for item in blocks for piece, kind in item["rows"].tolist() if kind != SPECIAL]
    assert found == [piece for document in expected for piece in document]
    # Consecutive in the file, none longer than a window, none empty
    assert blocks.spans[0, 0] == 0 and (blocks.spans[1:, 0] == blocks.spans[:-1, 1]).all()
    lengths = np.diff(blocks.spans, axis=1)
    assert lengths.max() <= window and lengths.min() > 2
    # Between the special pieces at its ends, a block has separators only between documents
    cls, sep = tokenizer.cls_token_id, tokenizer.sep_token_id
    parts = []
    for item in blocks:
        rows = item["rows"]
        assert rows[0].tolist() == [cls, SPECIAL] and rows[-1].tolist() == [sep, SPECIAL]
        inner = rows[1:-1]
        specials = np.flatnonzero(inner[:, 1] == SPECIAL)
        assert (inner[specials, 0] == sep).all()
        parts.append([part[part[:, 1] != SPECIAL, 0].tolist() for part in np.split(inner, specials)])
    # Each part lies within one document
    cuts, ends = np.cumsum([len(p) for block in parts for p in block]), np.cumsum([len(d) for d in expected])
    assert set(ends) <= set(cuts)
    assert len(cuts) <= len(ends) + len(blocks)


def test_blocks_are_filled(checkpoint, tmp_path):
    """Blocks end before a word that does not fit: none could take the first word of the next one."""
    path = tmp_path / "a.txt"
    path.write_text(" ".join(TEXTS * 5), encoding="utf8")
    blocks = read([path], checkpoint("bert"), 40)
    for this, following in zip(list(blocks)[:-1], list(blocks)[1:], strict=True):
        kinds = following["rows"][1:, 1]
        word = 1 + int(np.argmax(kinds[1:] != 0))  # pieces of its first word
        assert kinds[0] == FIRST and len(this["rows"]) + word > 40


def test_whole_words_stay_together_and_long_ones_are_cut(checkpoint, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("Oslo " + "ab1c" * 30 + " Kolb", encoding="utf8")
    folder = checkpoint("bert")
    tokenizer = reference_tokenizer("bert", folder)
    long = reference_pieces(tokenizer, ["ab1c" * 30])
    blocks = read([path], folder, 16)
    found = [piece for item in blocks for piece, kind in item["rows"].tolist() if kind != SPECIAL]
    assert found == reference_pieces(tokenizer, ["Oslo", "ab1c" * 30, "Kolb"])
    assert sum(int((item["rows"][:, 1] == FIRST).sum()) for item in blocks) == 3
    if len(long) > 14:  # longer than a block: starts with one of its own
        assert len(blocks) >= 2 and blocks[1]["rows"][1, 1] == FIRST


def test_words_of_docs_are_kept(checkpoint, tmp_path, blank):
    """A DocBin and a CoNLL file give the words that training sees, not those of spaCy's tokenizer."""
    words = ["2-1", "Oslo.", "x"]
    DocBin(docs=[Doc(blank.vocab, words=words)]).to_disk(tmp_path / "a.spacy")
    (tmp_path / "a.conll").write_text("".join(f"{word} O\n" for word in words), encoding="utf8")
    tokenizer = reference_tokenizer("roberta", checkpoint("roberta"))
    for name in ("a.spacy", "a.conll"):
        (block,) = read([tmp_path / name], checkpoint("roberta"))
        assert block["rows"][1:-1, 0].tolist() == reference_pieces(tokenizer, words)
        assert block["rows"][1:-1, 1].sum() == len(words)


def test_every_format_gives_the_same_blocks(checkpoint, tmp_path, blank):
    (tmp_path / "a.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in TEXTS), encoding="utf8")
    (tmp_path / "a.csv").write_text("text\n" + "".join(f'"{t}"\n' for t in TEXTS), encoding="utf8")
    DocBin(docs=list(map(blank.tokenizer, TEXTS))).to_disk(tmp_path / "a.spacy")
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, text in enumerate(TEXTS):
        (folder / f"{i:02}.txt").write_text(text, encoding="utf8")
    names = ["a.jsonl", "a.csv", "a.spacy", "folder", "folder/*.txt"]
    try:
        import pyarrow
        from pyarrow.parquet import write_table

        write_table(pyarrow.table({"text": TEXTS}), tmp_path / "a.parquet")
        names.append("a.parquet")
    except ImportError:
        pass
    first, *others = [read([str(tmp_path / name)], checkpoint("bert")) for name in names]
    for other in others:
        assert np.array_equal(first.rows, other.rows) and np.array_equal(first.spans, other.spans)


def test_a_long_text_goes_through_the_tokenizer_in_parts(checkpoint, tmp_path, monkeypatch):
    path = tmp_path / "a.txt"
    path.write_text("\n".join(TEXTS * 3), encoding="utf8")
    whole = read([path], checkpoint("bert"))
    monkeypatch.setattr(blocks_module, "MAX_CHARS", 50)
    assert np.array_equal(read([path], checkpoint("bert")).rows, whole.rows)


def test_memory_is_not_kept(checkpoint, tmp_path):
    """Words of texts do not stay in the vocabulary."""
    nlp = spacy.blank("en")
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps({"text": f"word{i} other{i}"}) + "\n" for i in range(5000)), encoding="utf8")
    before = len(nlp.vocab.strings)
    read([path], checkpoint("bert"), nlp=nlp)
    assert len(nlp.vocab.strings) < before + 100


def test_held_out_blocks_are_a_random_share(checkpoint):
    blocks = read([DEMO / "train.conll"], checkpoint("bert"))
    train, held_out = blocks.split(0.1, seed=0)
    assert len(held_out) == round(len(blocks) / 10)
    both = np.concatenate([train.spans, held_out.spans])
    assert np.array_equal(both[np.argsort(both[:, 0])], blocks.spans)
    assert np.array_equal(blocks.split(0.1, seed=0)[1].spans, held_out.spans)
    assert not np.array_equal(blocks.split(0.1, seed=1)[1].spans, held_out.spans)


def test_what_has_no_text_is_named(checkpoint, tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "Oslo is cold"}\n{"text": null}\n', encoding="utf8")
    (tmp_path / "b.bin").write_bytes(b"x")
    with pytest.warns(UserWarning) as found:
        blocks = read([tmp_path], checkpoint("bert"))
    assert len(blocks) == 1
    assert [str(warning.message) for warning in found] == [
        f"files of an unknown ending, skipped, 1: {tmp_path / 'b.bin'}",
        f"records without a text, skipped, 1: {tmp_path / 'a.jsonl'}:2: text: null, not a text",
    ]


def test_input_that_cannot_be_read(checkpoint, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "a.txt").write_bytes(b"Oslo\n\xff\xfe\x00")
    (tmp_path / "a.jsonl").write_text('{"body": "Oslo"}\n', encoding="utf8")
    for name, message in {
        "empty": "no file with a known ending in this folder",
        "a.txt": "a.txt:2: not utf-8: byte 0xff; set --encoding",
        "a.jsonl": "a.jsonl:1: no key 'text'; there are 'body'. Set --text-key",
        "none.txt": "no such file or folder",
    }.items():
        with pytest.raises(ConversionError) as err:
            read([tmp_path / name], checkpoint("bert"))
        assert message in str(err.value) and "\n" not in str(err.value)
