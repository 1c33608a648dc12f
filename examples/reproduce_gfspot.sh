#!/usr/bin/env bash
# Regenerate the GF-Spot results of the README from the footage: four ways to start stage 3, three seeds each, the ensemble of the
# best, the table and the picture of all learning curves.
#   bash examples/reproduce_gfspot.sh GFSPOT WORK [MODEL...]
# MODEL: folders of hub_configs; by default the convolutional model and the ViViT of its size. What is done already is not done again.
# SEEDS="0 1 2" are those of stage 3; STAGE_3="--training.num_train_epochs 8" are options of it in all four ways.
set -euo pipefail
gfspot=$1 work=$2
shift 2
[ $# -gt 0 ] || set -- gfspot-conv-small gfspot-vivit-small
here=$(dirname "$0")
seeds=${SEEDS:-0 1 2}
read -ra stage_3 <<< "${STAGE_3:-}"
mkdir -p "$work"
# every model takes frames at this rate and size, or at a rate that divides it
comedian prepare "$gfspot" "$work/frames" --fps 5 --height 64 --width 112 --quality 24
data=(--data.root "$gfspot" --data.frames "$work/frames" --data.labels "$gfspot/labels.txt")

run() { # COMMAND RECIPE OUTPUT OPTIONS...: a stage; one that is finished is left as it is
  comedian "$1" --config "$recipes/$2.yaml" "${data[@]}" --training.output_dir "$out/$3" "${@:4}"
}
from() { echo --model.config null --model.checkpoint "$out/$1"; }

fine_tune() { # ARM SEED OPTIONS...: stage 3, test predictions, test scores
  run finetune finetune "$1$2" --training.seed "$2" ${stage_3[@]+"${stage_3[@]}"} "${@:3}"
  [ -f "$out/$1$2.json" ] && return
  comedian spot "$gfspot" --split test --model "$out/$1$2" --output "$out/$1$2.zip" --save-scores "$out/$1$2-scores"
  comedian evaluate "$gfspot" "$out/$1$2.zip" --labels "$gfspot/labels.txt" --split test \
    --metric tight loose at1 --output "$out/$1$2.json"
}

for model in "$@"; do
  recipes=$here/../hub_configs/$model out=$work/$model
  mkdir -p "$out"
  run pretrain pretrain pretrained
  teacher_start=()
  if grep -q "teacher_start: pretrain" "$recipes/train.yaml"; then
    # shellcheck disable=SC2207
    teacher_start=($(from pretrained))
  fi
  run finetune teacher teacher "${teacher_start[@]}"
  comedian extract-features "$gfspot" "$out/features" --model "$out/teacher" --split train
  comedian reduce-features "$out/features" "$out/features64" --dim 64 --data "$gfspot" --split train
  run distill distill distilled --data.features "$out/features64" --model.config config.json
  run distill distill pretrained_distilled --data.features "$out/features64" --model.checkpoint "$out/pretrained"
  for seed in $seeds; do
    fine_tune scratch "$seed"
    # shellcheck disable=SC2046
    fine_tune stage1_ "$seed" $(from pretrained)
    # shellcheck disable=SC2046
    fine_tune stage2_ "$seed" $(from distilled)
    # shellcheck disable=SC2046
    fine_tune stages12_ "$seed" $(from pretrained_distilled)
  done
  comedian spot --scores "$out"/stages12_?-scores --keep-all --output "$out/ensemble.zip"
  comedian evaluate "$gfspot" "$out/ensemble.zip" --labels "$gfspot/labels.txt" --split test \
    --metric tight loose at1 --output "$out/ensemble.json"
  python "$here/results_table.py" --labels "$gfspot/labels.txt" "$out"/stages12_?.json
done
models=("${@/#/$work/}")
python "$here/gfspot_evidence.py" "${models[@]}" --output "$work/results"
