#!/usr/bin/env bash
# Evaluate on GPUS tasks of a Slurm job step.
set -euo pipefail

if [ $# -lt 4 ]; then
  cat >&2 <<'USAGE'
usage: tools/slurm_test.sh PARTITION JOB_NAME CONFIG CHECKPOINT [arguments of tools/test.py]
in the environment: GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5), SRUN_ARGS; see docs/clusters.md
USAGE
  exit 2
fi
partition=$1 job_name=$2 config=$3 checkpoint=$4
shift 4
gpus_per_node=${GPUS_PER_NODE:-8}
# An empty array is unset to bash before 4.4.
read -ra srun_args <<< "${SRUN_ARGS:-}"

tools=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
set -x
exec srun -p "$partition" \
  --job-name="$job_name" \
  --gres=gpu:"$gpus_per_node" \
  --ntasks="${GPUS:-8}" \
  --ntasks-per-node="$gpus_per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" \
  --kill-on-bad-exit=1 \
  ${srun_args[@]+"${srun_args[@]}"} \
  python -u "$tools/test.py" "$config" "$checkpoint" --launcher=slurm "$@"
