"""What data-parallel training of Mask R-CNN sends per iteration, and what SyncBN would send that group norm does not.

    python benchmarks/scale_communication.py --out benchmarks/results/scale_communication.json

Bytes are counted on the built models; times are MODELLED from them, nothing is sent. N GPUs in M machines:

    all-reduce of S bytes     base + (2(N-1) - 2(M-1)) intra + 2(M-1) inter + 2(N-1)/N S / bandwidth
    all-gather of s from each base +   (N-1 - (M-1))   intra +   (M-1) inter +  (N-1)   s / bandwidth

as in NCCL's src/graph/tuning.cc, whose latencies of a ring with the LL protocol are taken (base 6.6 us, a hop over
NVLink 0.6 us, over a network 2.7 us); for TCP 25 us a hop are assumed. Bandwidths are nominal, one direction: of a
GPU's NVLink in one machine, of a machine's one network port between machines. DDP reduces each trained parameter's
float32 gradient once, in buckets, while the backward pass runs. torch's SyncBatchNorm (torch/nn/modules/_functions.py)
gathers 2C + 1 floats per layer in the forward pass and reduces 2C in the backward pass, and the pass waits for each.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

import mmgn
from mmgn.engine.config import load_config

MODELS = {
    "R50": "mask_rcnn/mask-rcnn_r50_fpn_fusedgn-all_2x_coco.py",
    "R50, nothing frozen": "scratch/mask-rcnn_r50-scratch_fpn_fusedgn-all_3x_coco.py",
    "R101": "mask_rcnn/mask-rcnn_r101_fpn_fusedgn-all_2x_coco.py",
}
#: torch's default of DDP's bucket_cap_mb.
BUCKET_MIB = 25
BASE_US, NVLINK_US, NETWORK_US, TCP_US = 6.6, 0.6, 2.7, 25.0


@dataclass(frozen=True)
class Interconnect:
    """``bandwidth`` in GB/s each way, ``hop_us`` a hop's latency between machines (within one where there is one)."""

    name: str
    bandwidth: float
    hop_us: float
    machines: tuple[int, ...]


INTERCONNECTS = [
    Interconnect("NVLink 4", 450.0, NVLINK_US, (1,)),
    Interconnect("InfiniBand NDR, 400 Gbit/s", 50.0, NETWORK_US, (2, 8)),
    Interconnect("InfiniBand HDR, 200 Gbit/s", 25.0, NETWORK_US, (2, 8)),
    Interconnect("100 Gbit/s Ethernet, TCP", 12.5, TCP_US, (2, 8)),
    Interconnect("25 Gbit/s Ethernet, TCP", 3.125, TCP_US, (2, 8)),
    Interconnect("10 Gbit/s Ethernet, TCP", 1.25, TCP_US, (2, 8)),
]
GPUS_PER_MACHINE = 8


def all_reduce_us(size: float, gpus: int, machines: int, link: Interconnect) -> float:
    """Return the microseconds of a ring all-reduce of ``size`` bytes."""
    return _latency_us(2 * (gpus - 1), 2 * (machines - 1), link) + 2 * (gpus - 1) / gpus * size / link.bandwidth / 1e3


def all_gather_us(size: float, gpus: int, machines: int, link: Interconnect) -> float:
    """Return the microseconds of a ring all-gather of ``size`` bytes from each GPU."""
    return _latency_us(gpus - 1, machines - 1, link) + (gpus - 1) * size / link.bandwidth / 1e3


def _latency_us(steps: int, between_machines: int, link: Interconnect) -> float:
    return BASE_US + (steps - between_machines) * NVLINK_US + between_machines * link.hop_us


def count(model: nn.Module) -> dict[str, Any]:
    """Count what an iteration sends: gradients, and what SyncBN would send in the place of each trained norm."""
    trained = [p for p in model.parameters() if p.requires_grad]
    limits = [dist._DEFAULT_FIRST_BUCKET_BYTES, BUCKET_MIB * 2**20]
    buckets, _ = dist._compute_bucket_assignment_by_size(trained, limits, [False] * len(trained))
    # A frozen stage's norms are in eval mode, in which SyncBatchNorm does not synchronise.
    channels = [m.num_channels for m in model.modules() if isinstance(m, nn.GroupNorm) and m.weight.requires_grad]
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "trained": sum(p.numel() for p in trained),
        "gradient_bytes": 4 * sum(p.numel() for p in trained),
        "bucket_bytes": [4 * sum(trained[i].numel() for i in bucket) for bucket in buckets],
        "norms": len(channels),
        "gather_bytes": [4 * (2 * c + 1) for c in channels],
        "reduce_bytes": [4 * 2 * c for c in channels],
    }


def times(counts: dict[str, Any], machines: int, link: Interconnect) -> dict[str, float]:
    """Return the modelled milliseconds of the gradients' all-reduce and of SyncBN's collectives."""
    where = (GPUS_PER_MACHINE * machines, machines, link)
    gradients = sum(all_reduce_us(size, *where) for size in counts["bucket_bytes"])
    gathers = sum(all_gather_us(size, *where) for size in counts["gather_bytes"])
    reduces = sum(all_reduce_us(size, *where) for size in counts["reduce_bytes"])
    return {"gradients_ms": round(gradients / 1e3, 2), "syncbn_ms": round((gathers + reduces) / 1e3, 2)}


def build(config: str) -> nn.Module:
    """Build a config's model in training mode."""
    from mmdet.registry import MODELS as REGISTRY
    from mmengine.registry import init_default_scope

    init_default_scope("mmdet")
    model: nn.Module = REGISTRY.build(load_config(config).model)
    return model.train()


def main() -> None:
    """Count, model, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="JSON file to write")
    args = parser.parse_args()
    models, rows = [], []
    for name, config in MODELS.items():
        counts = count(build(config))
        models.append({"model": name, "config": config, **counts})
        print({key: sum(value) if isinstance(value, list) else value for key, value in models[-1].items()})
        for link in INTERCONNECTS:
            for machines in link.machines:
                where = {"interconnect": link.name, "machines": machines, "gpus": GPUS_PER_MACHINE * machines}
                rows.append({"model": name, **where, **times(counts, machines, link)})
                print(rows[-1])
    report = {
        "what": "bytes counted on the built models; milliseconds per iteration modelled, not measured",
        "torch": torch.__version__,
        "mmgn": mmgn.__version__,
        "models": models,
        "rows": rows,
    }
    if args.out:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
