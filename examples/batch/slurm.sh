#!/bin/sh
# One task a scene: sbatch --array=0-99 slurm.sh scenes.csv. Started again, it does what isn't finished.
#SBATCH --job-name=hsfuse
#SBATCH --cpus-per-task=4
#SBATCH --mem=8G
#SBATCH --time=01:00:00
#SBATCH --signal=TERM@60
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-4}"
exec hsfuse batch "$1" --index "$SLURM_ARRAY_TASK_ID" --resume --json
