#!/usr/bin/env bash
# From videos to a table on a cluster: four jobs, each of which waits for those it needs.
#
#   examples/slurm/submit.sh [FOLDER]      (default: the current one, with videos/ and data/ in it)
#
# Everything that Slurm should know of your cluster (partition, account, modules) goes into SBATCH_* variables or
# into the #SBATCH lines of the jobs. A job that is cut short goes on where it stopped: submit again.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "${1:-.}"

submit() { sbatch --parsable "$@"; }

video=$(submit "$here/extract.sbatch" video)
audio=$(submit "$here/extract.sbatch" audio)
model=$(submit --dependency "afterok:$video:$audio" "$here/pretrain.sbatch")
tasks=$(submit --dependency "afterok:$model" "$here/cmg.sbatch")
submit --dependency "afterok:$tasks" "$here/report.sbatch"
