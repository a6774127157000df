#!/usr/bin/env bash
# Entity F1 on wikigold (document split), 8 epochs of the packaged encoder, with the demo's config. Needs ../shared/data.
#     bash bench/wikigold.sh [seed]
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1
seed=${1:-0}
spacy="${VENV:-.venv}/bin/python -m spacy"
work=bench/work/wikigold
data=../shared/data/wikigold
[ -d "$data" ] || { echo "needs $data"; exit 1; }
for part in train dev test; do
    $spacy bertner convert "$data/$part.conll" "$work/corpus" --merge "$part"
done
$spacy train configs/demo.cfg --output "$work/training-$seed" --system.seed "$seed" \
    --paths.train "$work/corpus/train.spacy" --paths.dev "$work/corpus/dev.spacy" \
    --training.max_epochs 8 --training.max_steps 0 --training.eval_frequency 100 \
    --training.optimizer.learn_rate.warmup_steps 40 --training.optimizer.learn_rate.total_steps 440
$spacy evaluate "$work/training-$seed/model-best" "$work/corpus/test.spacy" --output "$work/test-$seed.json"
