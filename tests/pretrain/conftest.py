import pytest
import spacy
from tokenizers import Tokenizer
from transformers import AutoModelForMaskedLM

from spacy_bertner.model.checkpoint import load_tokenizer
from spacy_bertner.model.encoding import PieceEncoder

from ..conftest import ROOT, SENTENCES, write_checkpoint

pytest.importorskip("accelerate")

DEMO = ROOT / "assets" / "demo"


@pytest.fixture(scope="session")
def with_head(tmp_path_factory):
    """Give a function from an architecture to a tiny checkpoint with a head for masked language modelling, made once."""
    made = {}

    def get(kind: str = "bert"):
        if kind not in made:
            folder = write_checkpoint(tmp_path_factory.mktemp(kind), kind)
            model = AutoModelForMaskedLM.from_pretrained(folder)
            model.save_pretrained(folder)
            made[kind] = folder
        return made[kind]

    return get


def make_encoder(folder) -> PieceEncoder:
    tokenizer = load_tokenizer(str(folder))
    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    return PieceEncoder(backend, pad_id=tokenizer.pad_token_id, window=10**6, stride=10**6)


@pytest.fixture
def text(tmp_path):
    """A file of one sentence in a line, many times over."""
    path = tmp_path / "text.txt"
    path.write_text("".join(f"{words}\n" for words, _ in SENTENCES * 10), encoding="utf8")
    return path


@pytest.fixture
def blank():
    return spacy.blank("en")
