"""Training speed beside spaCy's own `transformer` + `ner`: the same encoder, the same words, interleaved in one run.

    python bench/training_speed.py [--encoder assets/encoder] [--data assets/demo/train.conll] [--rounds 5]

Each round trains every system on the same batches of about `--batch-words` words, one optimiser step a batch, first on whole
documents and then on sentences. `transformer` + `ner` is set up as spaCy's quick start for a GPU sets it up. Prints words a
second (median over the rounds) and the ratio.
"""

import argparse
import os
import statistics
import time
import warnings
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import spacy
import torch
from spacy.tokens import Doc
from spacy.training import Example, minibatch_by_words
from thinc.api import Adam, fix_random_seed

from spacy_bertner.convert import read_conll

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


def bert_ner(encoder: str, **transformer_config: float) -> spacy.Language:
    nlp = spacy.blank("en")
    nlp.add_pipe("bert_ner", config={"model": {"name": encoder, "transformer_config": transformer_config}})
    return nlp


def transformer_ner(encoder: str) -> spacy.Language:
    config = spacy.util.Config().from_str(TRANSFORMER_NER)
    config["components"]["transformer"]["model"]["name"] = encoder
    return spacy.util.load_model_from_config(config, auto_fill=True)


def batches(docs: list[Doc], size: int) -> list[list[Doc]]:
    return [list(batch) for batch in minibatch_by_words(docs, size=size, get_length=len)]


def train_once(nlp: spacy.Language, optimizer: Adam, batches_of_docs: list[list[Doc]]) -> float:
    """Take one step a batch; return the seconds."""
    examples = [[Example(Doc(nlp.vocab, words=[t.text for t in doc]), doc) for doc in docs] for docs in batches_of_docs]
    start = time.perf_counter()
    for batch in examples:
        nlp.update(batch, drop=0.1, sgd=optimizer)
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--encoder", default="assets/encoder")
    parser.add_argument("--data", type=Path, default=Path("assets/demo/train.conll"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--words", type=int, default=4000, help="words trained on in a round")
    parser.add_argument("--batch-words", type=int, default=1000)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    systems = {
        "bert_ner": bert_ner(args.encoder),
        "bert_ner, as in demo.cfg": bert_ner(args.encoder, attention_probs_dropout_prob=0.0),
        "transformer + ner": transformer_ner(args.encoder),
    }
    optimizers = {}
    docs, n_words = [], 0
    for doc in read_conll(args.data, vocab=systems["bert_ner"].vocab):
        docs.append(doc)
        n_words += len(doc)
        if n_words >= args.words:
            break
    sentences = [sent.as_doc() for doc in docs for sent in doc.sents]
    for name, nlp in systems.items():
        fix_random_seed(0)
        nlp.initialize(lambda nlp=nlp: [Example(Doc(nlp.vocab, words=[t.text for t in d]), d) for d in docs])
        optimizers[name] = Adam(1e-4, L2=0.01, use_averages=False)
    print(
        f"{n_words} words a round, {args.rounds} rounds, {torch.get_num_threads()} threads, torch {torch.__version__}"
    )
    for kind, units in (("documents", docs), ("sentences", sentences)):
        cut = batches(units, args.batch_words)
        seconds: dict[str, list[float]] = {name: [] for name in systems}
        for round_ in range(args.rounds + 1):
            for name, nlp in systems.items():
                taken = train_once(nlp, optimizers[name], cut)
                if round_:  # the first round warms up
                    seconds[name].append(taken)
        rates = {name: n_words / statistics.median(taken) for name, taken in seconds.items()}
        for name, rate in rates.items():
            print(f"{kind:10} {name:25} {rate:6.0f} words/s   {rate / rates['transformer + ner']:5.2f}")


if __name__ == "__main__":
    main()
