#!/usr/bin/env bash
# Train on GPUS processes of this machine, one of NNODES; on CPUs where there is no GPU.
set -euo pipefail

if [ $# -lt 2 ]; then
  cat >&2 <<'USAGE'
usage: tools/dist_train.sh CONFIG GPUS [arguments of tools/train.py]
several machines: NNODES, NODE_RANK, MASTER_ADDR, PORT (29500) in the environment; see docs/clusters.md
USAGE
  exit 2
fi
config=$1 gpus=$2
shift 2

tools=$(cd -- "$(dirname -- "${BASH_SOURCE[0]}")" && pwd)
export PYTHONPATH="$tools/..${PYTHONPATH:+:$PYTHONPATH}"
exec python -m mmgn.engine.torchrun "$gpus" "$tools/train.py" "$config" --launcher pytorch "$@"
