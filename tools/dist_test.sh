#!/usr/bin/env bash
# Evaluate on GPUS processes of this machine, one of NNODES; on CPUs where there is no GPU.
set -euo pipefail

if [ $# -lt 3 ]; then
  cat >&2 <<'USAGE'
usage: tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments of tools/test.py]
several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT (29500) in the environment; see docs/clusters.md
USAGE
  exit 2
fi
config=$1 checkpoint=$2 gpus=$3
shift 3

tools=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m mmgn.engine.torchrun "$gpus" "$tools/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
