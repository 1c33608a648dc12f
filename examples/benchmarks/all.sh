#!/usr/bin/env bash
# Run the benchmarks of the README beside this script, about half an hour on two idle cores:
#   bash examples/benchmarks/all.sh GFSPOT WORK
# Each one's output is in WORK/<name>.txt. WORK/videos takes 2 GB.
set -euo pipefail
gfspot=${1:?usage: all.sh GFSPOT WORK} work=${2:?usage: all.sh GFSPOT WORK} here=$(dirname "$0")
mkdir -p "$work"
measure() { # NAME SCRIPT OPTIONS...
  echo "$(date +%T) $1"
  python -W ignore "$here/$2.py" "${@:3}" > "$work/$1.txt"
}
measure start_up start_up
measure suppression suppression
measure augmentation_small augmentation --batch 64 --height 64 --width 112
measure augmentation augmentation --batch 64 --stored-width 398
measure distillation_loss distillation_loss
measure official_score official_score
measure training_step training_step
measure training_step_fused training_step --fused-attention
measure window_loading_224 window_loading "$gfspot" --width 224
measure window_loading window_loading "$gfspot"
measure frame_store_codecs frame_store_codecs "$gfspot" --halves 2
measure frame_store_codecs_112 frame_store_codecs "$gfspot" --fps 10 --height 112 --halves 1
measure prepare prepare "$gfspot" "$work/videos"
measure openvino spotting "$gfspot" "$work/videos" --minutes 10 --openvino --int8
measure spotting spotting "$gfspot" "$work/videos"
measure three_hours spotting "$gfspot" "$work/videos" --minutes 180 --skip-straightforward --repeats 1
measure scaling scaling "$work/videos/45min.mkv" "$work/videos/vivit-tiny" "$work/scaling.svg"
