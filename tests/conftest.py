"""Tiny random checkpoints of real architectures, with tokenizers trained on a few lines, for all tests."""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from math import log
from pathlib import Path

import numpy as np
import pytest
import spacy
import torch
from spacy.tokens import Doc
from spacy.training import Example
from thinc.api import fix_random_seed
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

ROOT = Path(__file__).parent.parent
SHARED_DATA = ROOT.parent / "shared" / "data"

SENTENCES = [
    ("Maria Kolb lives in Dresden .", "B-PER I-PER O O B-LOC O"),
    ("The Tarrant Group bought Nordbank in March .", "O B-ORG I-ORG O B-ORG O O O"),
    ("Ines de la Cruz wrote The Long River for the Lisbon Post .",
     "B-PER I-PER I-PER I-PER O B-MISC I-MISC I-MISC O O B-ORG I-ORG O"),
    ("Nothing happened on Monday .", "O O O O O"),
    ("Dresden beat Lisbon 2-1 at home .", "B-ORG O B-ORG O O O O"),
    ("Kenyan runner Otieno won in Oslo .", "B-MISC O B-PER O O B-LOC O"),
    ("Oslo is cold , said Mr. Aas .", "B-LOC O O O O O B-PER O"),
    ("Shares of Nordbank fell .", "O O B-ORG O O"),
    ("He spoke Danish with Kolb .", "O O B-MISC O B-PER O"),
    ("The river Elbe rose again .", "O O B-LOC O O O"),
    ("Paris Adeyemi left Paris .", "B-PER I-PER O B-LOC O"),
    ("Harlan founded Harlan Freight in Porto .", "B-PER O B-ORG I-ORG O B-LOC O"),
    ("It rained for two days .", "O O O O O O"),
    ("The Nordic Cup starts in Turku .", "O B-MISC I-MISC O O B-LOC O"),
    ("Turku lost the cup .", "B-ORG O O O O"),
    ("Mayor Sela of Porto resigned .", "O B-PER O B-LOC O O"),
    ("German firms bought oil .", "B-MISC O O O O"),
    ("The Elbe Times reported it .", "O B-ORG I-ORG O O O"),
    ("Adeyemi and Sela met in Tallinn .", "B-PER O B-PER O O B-LOC O"),
    ("No one from Tallinn came .", "O O O B-LOC O O"),
]  # fmt: skip
TEXT = [words for words, _ in SENTENCES] + ["unhappily running tokenization internationalisation 1234 5678 naïve Ünder"]
ARCHITECTURES = ("bert", "bert-uncased", "roberta", "xlm-roberta", "distilbert", "electra", "deberta-v2")
LABELS = ["LOC", "MISC", "ORG", "PER"]
SIZES = {
    "num_hidden_layers": 2, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 48,
}  # fmt: skip


def trained_pieces(size: int, pre_tokenizer, normalizer) -> list[str]:
    """Train pieces of words: by BPE, as the trainers of WordPiece and Unigram do not give the same ones every time."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.train_from_iterator(TEXT, trainers.BpeTrainer(vocab_size=size, show_progress=False))
    vocabulary = tokenizer.get_vocab()
    return sorted(vocabulary, key=vocabulary.__getitem__)


def train_tokenizer(kind: str):
    """Train a fast tokenizer as the architecture has it, the same one every time."""
    from transformers import PreTrainedTokenizerFast

    if kind in ("roberta", "xlm-roberta", "deberta-v2"):
        specials = {"bos": "<s>", "pad": "<pad>", "eos": "</s>", "unk": "<unk>", "mask": "<mask>"}
        cls, sep = "<s>", "</s>"
    else:
        specials = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
        cls, sep = "[CLS]", "[SEP]"
    special_tokens = list(specials.values())
    if kind == "roberta":
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=400, special_tokens=special_tokens, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        )
        tokenizer.train_from_iterator(TEXT, trainer)
    elif kind in ("xlm-roberta", "deberta-v2"):
        pre_tokenizer, normalizer = pre_tokenizers.Metaspace(), normalizers.NFKC()
        pieces = [*special_tokens, *trained_pieces(145, pre_tokenizer, normalizer)]
        scores = [0.0] * len(specials) + [-log(rank) for rank in range(2, len(pieces) - len(specials) + 2)]
        tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=pieces.index("<unk>")))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
        tokenizer.decoder = decoders.Metaspace()
    else:
        pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        normalizer = normalizers.BertNormalizer(lowercase=kind == "bert-uncased")
        pieces = trained_pieces(100, pre_tokenizer, normalizer)
        pieces = [*special_tokens, *pieces, *(f"##{piece}" for piece in pieces)]
        tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
        tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
        tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special_tokens)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{cls} $A {sep}",
        pair=f"{cls} $A {sep} $B {sep}",
        special_tokens=[(cls, tokenizer.token_to_id(cls)), (sep, tokenizer.token_to_id(sep))],
    )
    names = {f"{name}_token": token for name, token in specials.items()} | {"cls_token": cls, "sep_token": sep}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def reference_tokenizer(kind: str, folder: Path):
    """The tokenizer as transformers has it, for words given one by one."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if kind == "roberta":
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    return tokenizer


def write_checkpoint(folder: Path, kind: str, tags: list[str] | None = None, **settings) -> Path:
    """Write a tiny random checkpoint, with a token-classification head where `tags` are given."""
    from transformers import AutoConfig, AutoModel, AutoModelForTokenClassification

    tokenizer = train_tokenizer(kind)
    tokenizer.save_pretrained(folder)
    model_type = {"bert-uncased": "bert"}.get(kind, kind)
    sizes = dict(SIZES)
    if model_type == "distilbert":
        sizes = {"n_layers": 2, "n_heads": 4, "dim": 32, "hidden_dim": 48}
    positions = 514 if "roberta" in model_type else 512
    config = AutoConfig.for_model(
        model_type,
        **{
            "vocab_size": len(tokenizer),
            "pad_token_id": tokenizer.pad_token_id,
            "max_position_embeddings": positions,
            "initializer_range": 0.3,
            **sizes,
            **settings,
        },
    )
    if tags is not None:
        config.num_labels = len(tags)
        config.id2label = dict(enumerate(tags))
        config.label2id = {tag: i for i, tag in enumerate(tags)}
    torch.manual_seed(0)
    kind_of_model = AutoModel if tags is None else AutoModelForTokenClassification
    kind_of_model.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Give a function from an architecture (and tags) to the folder of a tiny checkpoint, each made once."""
    made = {}

    def get(kind: str = "bert", tags: list[str] | None = None) -> Path:
        key = kind, tuple(tags) if tags else None
        if key not in made:
            made[key] = write_checkpoint(tmp_path_factory.mktemp(kind), kind, tags)
        return made[key]

    return get


def to_numpy(x) -> np.ndarray:
    """An array of the device that the tests run on, or a tensor, in main memory."""
    return x if isinstance(x, np.ndarray) else x.detach().cpu().numpy() if hasattr(x, "detach") else x.get()


def scores_of(component, docs) -> list[np.ndarray]:
    """What the model of a component gives for Docs: a row of tag scores for each token."""
    return [to_numpy(rows) for rows in component.model.predict(docs)]


@pytest.fixture
def nlp():
    return spacy.blank("en")


def make_examples(nlp, sentences=None) -> list[Example]:
    """Make examples of the sentences, each a Doc."""
    examples = []
    for words, tags in SENTENCES if sentences is None else sentences:
        reference = Doc(nlp.vocab, words=words.split(), ents=tags.split())
        examples.append(Example(Doc(nlp.vocab, words=words.split()), reference))
    return examples


@pytest.fixture
def tagger(nlp, checkpoint):
    """Give a function that makes an initialized component in `nlp`."""

    def make(kind: str = "bert", config: dict | None = None, **model):
        config = {**(config or {}), "model": {"name": str(checkpoint(kind)), **model}}
        component = nlp.add_pipe("bert_ner", config=config)
        torch.manual_seed(0)
        nlp.initialize(lambda: make_examples(nlp))
        return component

    return make


@pytest.fixture(autouse=True)
def seeded() -> None:
    """What a test draws does not depend on the tests before it."""
    fix_random_seed(0)


@pytest.fixture
def shared_data() -> Path:
    if not SHARED_DATA.exists():
        pytest.skip("needs ../shared/data")
    return SHARED_DATA
