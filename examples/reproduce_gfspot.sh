#!/usr/bin/env bash
# Regenerate the GF-Spot results of the README: four ways to start stage 3, three seeds each, and the ensemble of the best.
#   bash examples/reproduce_gfspot.sh GFSPOT WORK
# About four hours on two CPU cores; what is done already is not done again.
set -euo pipefail
gfspot=$1 work=$2
here=$(dirname "$0")
recipes=$here/../hub_configs/gfspot-viswin-nano
data=(--data.root "$gfspot" --data.frames "$work/frames" --data.labels "$gfspot/labels.txt")

run() { # COMMAND RECIPE OUTPUT OPTIONS...: a stage; one that is finished is left as it is
  comedian "$1" --config "$recipes/$2.yaml" "${data[@]}" --training.output_dir "$work/$3" "${@:4}"
}

mkdir -p "$work"
comedian prepare "$gfspot" "$work/frames" --fps 5 --height 64 --width 112 --quality 24
run pretrain pretrain pretrained
run finetune teacher teacher
comedian extract-features "$gfspot" "$work/features" --model "$work/teacher" --split train
comedian reduce-features "$work/features" "$work/features64" --dim 64 --data "$gfspot" --split train
run distill distill distilled --data.features "$work/features64" --model.config config.json
run distill distill pretrained_distilled --data.features "$work/features64" --model.checkpoint "$work/pretrained"

fine_tune() { # ARM SEED OPTIONS...: stage 3, test predictions, test scores
  run finetune finetune "$1$2" --training.seed "$2" "${@:3}"
  [ -f "$work/$1$2.json" ] && return
  comedian spot "$gfspot" --split test --model "$work/$1$2" --output "$work/$1$2.zip" --save-scores "$work/$1$2-scores"
  comedian evaluate "$gfspot" "$work/$1$2.zip" --labels "$gfspot/labels.txt" --split test \
    --metric tight loose --output "$work/$1$2.json"
}
from() { echo --model.config null --model.checkpoint "$work/$1"; }
for seed in 0 1 2; do
  fine_tune scratch "$seed"
  # shellcheck disable=SC2046
  fine_tune stage1_ "$seed" $(from pretrained)
  # shellcheck disable=SC2046
  fine_tune stage2_ "$seed" $(from distilled)
  # shellcheck disable=SC2046
  fine_tune stages12_ "$seed" $(from pretrained_distilled)
done

comedian spot --scores "$work"/stages12_[012]-scores --keep-all --output "$work/ensemble.zip"
comedian evaluate "$gfspot" "$work/ensemble.zip" --labels "$gfspot/labels.txt" --split test \
  --metric tight loose --output "$work/ensemble.json"
python "$here/gfspot_evidence.py" "$work" --output "$work/results"
python "$here/results_table.py" --labels "$gfspot/labels.txt" "$work"/stages12_[012].json
