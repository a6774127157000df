#!/usr/bin/env bash
# A pipeline trained on wikigold, exported and opened with transformers: the same tags on all of the test file, and the same
# scores once it is in a pipeline again (bench/export.py). Needs ../shared/data.
#     bash bench/export.sh [seed]
set -euo pipefail
cd "$(dirname "$0")/.."
export HF_HUB_OFFLINE=1
seed=${1:-0}
python=${VENV:-.venv}/bin/python
work=bench/work/export
data=../shared/data/wikigold
[ -d "$data" ] || { echo "needs $data"; exit 1; }
for part in train dev test; do
    $python -m spacy bertner convert "$data/$part.conll" "$work/corpus" --merge "$part"
done
# A checkpoint has no place for the embedding of what words look like
$python -m spacy train configs/demo.cfg --output "$work/training-$seed" --system.seed "$seed" \
    --paths.train "$work/corpus/train.spacy" --paths.dev "$work/corpus/dev.spacy" \
    --components.bert_ner.model.orthography false \
    --training.max_epochs 5 --training.max_steps 0 --training.eval_frequency 50 \
    --training.optimizer.learn_rate.warmup_steps 25 --training.optimizer.learn_rate.total_steps 275
$python -m spacy bertner export "$work/training-$seed/model-best" "$work/checkpoint-$seed" --force
$python bench/export.py "$work/training-$seed/model-best" "$work/checkpoint-$seed" "$work/corpus/test.spacy"
