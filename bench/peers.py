"""The other systems that the benchmarks compare with, and encoders to compare them on."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import spacy
import torch
from common import DEMO, read_sentences
from torch import Tensor

TRANSFORMER_NER = """
[nlp]
lang = "en"
pipeline = ["transformer","ner"]
[components]
[components.transformer]
factory = "transformer"
[components.transformer.model]
@architectures = "spacy-transformers.TransformerModel.v3"
name = "bert-base-cased"
mixed_precision = false
tokenizer_config = {"use_fast": true}
[components.transformer.model.get_spans]
@span_getters = "spacy-transformers.strided_spans.v1"
window = 128
stride = 96
[components.ner]
factory = "ner"
[components.ner.model]
@architectures = "spacy.TransitionBasedParser.v2"
state_type = "ner"
extra_state_tokens = false
hidden_width = 64
maxout_pieces = 2
use_upper = false
nO = null
[components.ner.model.tok2vec]
@architectures = "spacy-transformers.TransformerListener.v1"
grad_factor = 1.0
[components.ner.model.tok2vec.pooling]
@layers = "reduce_mean.v1"
"""


# Shapes of encoders, as a BertConfig has them
SHAPES: dict[str, dict[str, int]] = {
    "bert-base": {},
    "minilm": {"hidden_size": 384, "intermediate_size": 1536, "num_hidden_layers": 6, "num_attention_heads": 12},
    "tiny": {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4},
}


def transformer_ner(encoder: str, mixed_precision: str | None) -> spacy.Language:
    """spaCy's `transformer` + `ner`, set up as its quick start for a GPU sets it up."""
    config = spacy.util.Config().from_str(TRANSFORMER_NER)
    config["components"]["transformer"]["model"]["name"] = encoder
    # Thinc has float16 alone
    config["components"]["transformer"]["model"]["mixed_precision"] = mixed_precision is not None
    return spacy.util.load_model_from_config(config, auto_fill=True)


def write_base_encoder(tokenizer: str, folder: str) -> str:
    """Write a checkpoint of the size of bert-base with random weights and a tokenizer from elsewhere."""
    from transformers import BertConfig

    return write_random_encoder(tokenizer, folder, BertConfig())


def write_random_encoder(tokenizer: str, folder: str, config: Any) -> str:
    """Write a BERT checkpoint with random weights and a tokenizer from elsewhere."""
    from transformers import AutoTokenizer, BertModel

    AutoTokenizer.from_pretrained(tokenizer).save_pretrained(folder)
    torch.manual_seed(0)
    BertModel(config).save_pretrained(folder)
    return folder


def write_demo_encoder(shape: str, folder: str) -> str:
    """Write a BERT checkpoint with random weights of a shape, and a cased WordPiece tokenizer of the demo corpus."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    specials = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    trainer = trainers.WordPieceTrainer(
        vocab_size=8000, min_frequency=2, special_tokens=list(specials.values()), show_progress=False
    )
    words = [token.text for sentence in read_sentences(DEMO) for token in sentence]
    tokenizer.train_from_iterator(words, trainer)
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = {f"{name}_token": token for name, token in specials.items()}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=512, **names).save_pretrained(folder)
    torch.manual_seed(0)
    # As wide a range as a trained encoder has: with 0.02 all words would look alike
    BertModel(BertConfig(**SHAPES[shape], initializer_range=0.05)).save_pretrained(folder)
    return folder


def write_hf_checkpoint(nlp: spacy.Language, encoder: str, folder: Path) -> str:
    """Write encoder and head of a `bert_ner` pipeline as a token-classification checkpoint of transformers.

    The configuration is that of the checkpoint `encoder` that the pipeline started from. The embedding of what words look
    like stays behind: it has no place there.
    """
    from transformers import AutoConfig, AutoModelForTokenClassification

    shim = nlp.get_pipe("bert_ner").model.shims[0]  # type: ignore[attr-defined]
    tags = nlp.get_pipe("bert_ner").tag_set.tags  # type: ignore[attr-defined]
    shim.module.encoder.save_pretrained(folder)
    shim.tokenizer.save_pretrained(folder)
    config = AutoConfig.from_pretrained(
        encoder, num_labels=len(tags), id2label=dict(enumerate(tags)), label2id={tag: i for i, tag in enumerate(tags)}
    )
    model = AutoModelForTokenClassification.from_pretrained(folder, config=config)
    with torch.no_grad():
        model.classifier.weight.copy_(shim.module.head.weight)
        model.classifier.bias.copy_(shim.module.head.bias)
    model.save_pretrained(folder)
    return str(folder)


def load_hf(checkpoint: str, device: torch.device) -> tuple[Any, Any]:
    """Model for token classification, and tokenizer."""
    from transformers import AutoModelForTokenClassification, AutoTokenizer

    model = AutoModelForTokenClassification.from_pretrained(checkpoint).to(device).eval()
    return model, AutoTokenizer.from_pretrained(checkpoint)


def padded_loop(
    model: Any, tokenizer: Any, texts: Sequence[list[str]], *, is_cut: bool, length: int = 128, size: int = 32
) -> list[list[str]]:
    """Predict as tutorials do: every text padded to 128 pieces, in batches of 32, the tag of each word's first piece.

    texts: the words of each. is_cut: whether a text that is longer goes on in the next row; if not, the rest is dropped.
    Returns the tags of each text.
    """
    tags: list[list[str]] = [[] for _ in texts]
    for start in range(0, len(texts), size):
        encoding = tokenizer(
            texts[start : start + size],
            is_split_into_words=True,
            truncation=True,
            padding="max_length",
            max_length=length,
            return_overflowing_tokens=is_cut,
            return_tensors="pt",
        )
        n_rows = len(encoding["input_ids"])
        text_of_row = encoding["overflow_to_sample_mapping"].tolist() if is_cut else range(n_rows)
        for low in range(0, n_rows, size):  # one batch, unless texts were cut
            rows = slice(low, low + size)
            with torch.no_grad():
                logits = model(
                    input_ids=encoding["input_ids"][rows].to(model.device),
                    attention_mask=encoding["attention_mask"][rows].to(model.device),
                ).logits
            for row, best in enumerate(logits.argmax(-1).tolist(), start=low):
                found = tags[start + text_of_row[row]]
                for word, tag in zip(encoding.word_ids(row), best, strict=True):
                    if word == len(found):  # the first piece of the next word
                        found.append(model.config.id2label[tag])
    return tags


def hf_examples(docs: Sequence, tokenizer: Any, tags: Sequence[str], length: int) -> list[tuple[list[int], list[int]]]:
    """Cut labelled sentences into pieces: the pieces, and the tag of each word's first piece (else -100)."""
    number = {tag: i for i, tag in enumerate(tags)}
    examples = []
    for doc in docs:
        encoding = tokenizer([t.text for t in doc], is_split_into_words=True, truncation=True, max_length=length)
        labels, before = [], None
        for word in encoding.word_ids():
            is_first = word is not None and word != before
            token = doc[word] if is_first else None
            tag = "" if token is None else f"{token.ent_iob_}-{token.ent_type_}" if token.ent_type_ else "O"
            labels.append(number[tag] if is_first else -100)
            before = word
        examples.append((encoding["input_ids"], labels))
    return examples


def hf_collate(
    examples: Sequence[tuple[list[int], list[int]]], pad_id: int, device: torch.device, length: int | None = None
) -> dict[str, Tensor]:
    """Pad a batch to `length`, or to its longest example."""
    width = length or max(len(ids) for ids, _ in examples)
    input_ids = torch.full((len(examples), width), pad_id)
    labels = torch.full((len(examples), width), -100)
    mask = torch.zeros((len(examples), width), dtype=torch.long)
    for row, (ids, tags) in enumerate(examples):
        input_ids[row, : len(ids)] = torch.tensor(ids)
        labels[row, : len(ids)] = torch.tensor(tags)
        mask[row, : len(ids)] = 1
    return {"input_ids": input_ids.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}
