"""A config and a search space, made by `init` for tiny data and a tiny encoder."""

import pytest
import spacy
from spacy.tokens import DocBin

from spacy_bertner.training.init import make_config, write_config, write_space

from ..conftest import make_examples

pytest.importorskip("optuna")


@pytest.fixture(scope="session")
def project(tmp_path_factory, checkpoint):
    """A folder with train.spacy, dev.spacy, config.cfg and space.cfg."""
    folder = tmp_path_factory.mktemp("tune")
    docs = [eg.reference for eg in make_examples(spacy.blank("en"))]
    DocBin(docs=docs).to_disk(folder / "train.spacy")
    DocBin(docs=docs[::2]).to_disk(folder / "dev.spacy")
    encoder = str(checkpoint("bert-uncased"))
    plan = make_config(folder / "config.cfg", folder / "train.spacy", folder / "dev.spacy", encoder, epochs=6)
    write_config(plan, folder / "config.cfg")
    write_space(plan, folder / "space.cfg")
    return folder


@pytest.fixture
def write_space_file(tmp_path):
    """Give a function that writes a search space."""

    def write(text):
        path = tmp_path / "space.cfg"
        path.write_text(text, encoding="utf8")
        return path

    return write
