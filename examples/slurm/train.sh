#!/bin/bash
# All stages of a recipe on several machines with a shared file system, decoding and evaluation included.
#
#   sbatch examples/slurm/train.sh RECIPE --data MATCHES --labels labels.txt --output RUN
#
# After an interruption, Slurm or you submit the same command again, and it resumes.
#SBATCH --job-name=comedian-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --output=%x-%j.log
set -euo pipefail

MAIN_ADDRESS=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MAIN_ADDRESS

# one launcher a machine, which starts one process a GPU; in single quotes, as each machine has its own SLURM_NODEID
srun --kill-on-bad-exit=1 bash -c '
  exec accelerate launch --config_file examples/accelerate_configs/multi_node.yaml \
    --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * SLURM_GPUS_ON_NODE))" \
    --machine_rank "$SLURM_NODEID" --main_process_ip "$MAIN_ADDRESS" \
    -m comedian.cli.main train "$@"
' launch "$@"
