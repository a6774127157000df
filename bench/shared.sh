#!/usr/bin/env bash
# Scores on wikigold (document split), 8 epochs of the packaged encoder shared by bert_ner and senter. Needs ../shared/data.
#     bash bench/shared.sh [seed]
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1
seed=${1:-0}
spacy="${VENV:-.venv}/bin/python -m spacy"
work=bench/work/shared
data=../shared/data/wikigold
[ -d "$data" ] || { echo "needs $data"; exit 1; }
for part in train dev test; do
    $spacy bertner convert "$data/$part.conll" "$work/corpus" --merge "$part"
done
$spacy train configs/shared.cfg --output "$work/training-$seed" --system.seed "$seed" \
    --paths.train "$work/corpus/train.spacy" --paths.dev "$work/corpus/dev.spacy" \
    --training.max_epochs 8 --training.max_steps 0 --training.eval_frequency 100 \
    --training.optimizer.learn_rate.warmup_steps 40 --training.optimizer.learn_rate.total_steps 440
$spacy evaluate "$work/training-$seed/model-best" "$work/corpus/test.spacy" --output "$work/test-$seed.json"
