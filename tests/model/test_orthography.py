"""Orthographic classes: which words have which, and that saved models keep theirs."""

import copy
import hashlib
import json
import shutil
import unicodedata

import pytest
import spacy
from safetensors.torch import load_file, save_file
from spacy.tokens import Doc

from spacy_bertner.export.onnx import to_onnx
from spacy_bertner.model.orthography import ORTHOGRAPHY, orthographic_class

from ..conftest import make_examples


@pytest.mark.parametrize(
    ("word", "name"),
    [("house", "lower"), ("House", "title"), ("USA", "upper"), ("A", "initial"), ("A.", "initial"), ("McKay", "mixed"),
     ("12", "digit"), ("1,200", "digit"), (",", "punct"), ("--", "punct"), ("x1", "lower"), ("日本", "other"),
     ("$", "other"), (" \n", "blank"), ("\u200b", "blank"), ("\x00", "blank")],
)  # fmt: skip
def test_orthographic_classes(word, name, nlp):
    assert ORTHOGRAPHY[orthographic_class(nlp.vocab, nlp.vocab.strings.add(word))] == name


@pytest.mark.parametrize(
    ("word", "name"),
    [("École", "title"), ("Żółć", "title"), ("Nguyễn", "title"), ("İstanbul", "title"), ("ÉCOLE", "upper"),
     ("école", "lower"), ("Donau\u00addampf", "title"), ("Ankara'da", "title"), ("d'Artagnan", "mixed"),
     ("Лук'янівка", "title"), ("L\u2019Aquila", "title"), ("Ber\u200blin", "title"), ("O'Brien", "title"),
     ("don't", "lower"), ("हिन्दी", "other"),
     ("B-2", "initial"), ("re-Elect", "other")],
)  # fmt: skip
def test_marks_and_apostrophes_do_not_hide_capitals(word, name, nlp):
    for form in ("NFC", "NFD"):
        text = unicodedata.normalize(form, word)
        assert ORTHOGRAPHY[orthographic_class(nlp.vocab, nlp.vocab.strings.add(text))] == name


def test_a_saved_model_keeps_the_classes_that_it_was_trained_with(checkpoint, tmp_path):
    """Files that do not name a definition have the first one; the weights are the same."""
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": str(checkpoint("bert-uncased"))}})
    examples = make_examples(nlp)
    nlp.initialize(lambda: examples)
    nlp.to_disk(tmp_path / "new")
    shutil.copytree(tmp_path / "new", tmp_path / "old")
    file = tmp_path / "old" / "bert_ner" / "model" / "head.safetensors"
    save_file(load_file(file), file)
    cfg = json.loads((tmp_path / "old" / "bert_ner" / "cfg").read_text())
    cfg["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (tmp_path / "old" / "bert_ner" / "cfg").write_text(json.dumps(cfg))
    for name, expected in (("new", "title"), ("old", "other")):
        loaded = spacy.load(tmp_path / name)
        again = spacy.util.load_model_from_config(loaded.config).from_bytes(loaded.to_bytes())
        converted = copy.deepcopy(loaded)
        to_onnx(converted)
        converted.to_disk(tmp_path / "onnx")
        for other in (loaded, again, copy.deepcopy(loaded), converted, spacy.load(tmp_path / "onnx")):
            model = other.get_pipe("bert_ner").model
            list(other.pipe(["Ankara'da"]))
            pieces = model.shims[0].pieces.pieces([Doc(other.vocab, words=["Ankara'da"])])[0]
            assert ORTHOGRAPHY[pieces.orthography[0]] == expected
