#!/bin/bash
# One command of comedian as a job array: each task does a fixed share of the halves.
#
#   sbatch examples/slurm/job_array.sh prepare MATCHES FRAMES --height 224
#   sbatch examples/slurm/job_array.sh extract-features MATCHES BANK --model MODEL
#   sbatch --gpus-per-task=1 examples/slurm/job_array.sh spot MATCHES --model MODEL --save-scores SCORES
#
# A task that ended early is submitted again alone: sbatch --array=7 examples/slurm/job_array.sh ...
#SBATCH --job-name=comedian
#SBATCH --array=1-16
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=16G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=%x-%A-%a.log
set -euo pipefail

# the number of shares stays the same when some tasks are submitted again; change it together with --array
SHARES=${SHARES:-16}
comedian "$@" --shard "$SLURM_ARRAY_TASK_ID/$SHARES"
