#!/usr/bin/env bash
# Regenerate the GF-Spot results of the README: frames, three seeds, test predictions, scores.
#   bash examples/reproduce_gfspot.sh GFSPOT WORK
set -euo pipefail
gfspot=$1 work=$2
recipe=$(dirname "$0")/../hub_configs/gfspot-viswin-nano/finetune.yaml
comedian prepare "$gfspot" "$work/frames" --fps 5 --height 64 --width 112 --quality 24
for seed in 0 1 2; do
  comedian finetune --config "$recipe" --data.root "$gfspot" --data.frames "$work/frames" \
    --data.labels "$gfspot/labels.txt" --training.output_dir "$work/seed$seed" --training.seed "$seed"
  comedian spot "$gfspot" --split test --model "$work/seed$seed" --output "$work/seed$seed.zip" \
    --save-scores "$work/scores$seed"
  comedian evaluate "$gfspot" "$work/seed$seed.zip" --labels "$gfspot/labels.txt" --split test \
    --metric tight loose --output "$work/seed$seed.json"
done
comedian spot --scores "$work/scores0" "$work/scores1" "$work/scores2" --all --output "$work/ensemble.zip"
comedian evaluate "$gfspot" "$work/ensemble.zip" --labels "$gfspot/labels.txt" --split test \
  --metric tight loose --output "$work/ensemble.json"
python "$(dirname "$0")/results_table.py" --labels "$gfspot/labels.txt" "$work"/seed[012].json
