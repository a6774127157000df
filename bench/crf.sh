#!/usr/bin/env bash
# Entity F1 on wikigold with and without `crf`, on the development and the test file. Otherwise as bench/wikigold.sh:
# 8 epochs of the packaged encoder with the demo's config, the best pipeline by the development file. Needs ../shared/data.
#     bash bench/crf.sh [seed]
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1
seed=${1:-0}
spacy="${VENV:-.venv}/bin/python -m spacy"
work=bench/work/crf
data=../shared/data/wikigold
[ -d "$data" ] || { echo "needs $data"; exit 1; }
for part in train dev test; do
    $spacy bertner convert "$data/$part.conll" "$work/corpus" --merge "$part"
done
for crf in false true; do
    $spacy train configs/demo.cfg --output "$work/crf-$crf-$seed" --system.seed "$seed" \
        --components.bert_ner.model.crf "$crf" \
        --paths.train "$work/corpus/train.spacy" --paths.dev "$work/corpus/dev.spacy" \
        --training.max_epochs 8 --training.max_steps 0 --training.eval_frequency 100 \
        --training.optimizer.learn_rate.warmup_steps 40 --training.optimizer.learn_rate.total_steps 440
    for part in dev test; do
        echo "crf = $crf, seed $seed, $part:"
        $spacy evaluate "$work/crf-$crf-$seed/model-best" "$work/corpus/$part.spacy"
    done
done
