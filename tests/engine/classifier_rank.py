"""One rank of a small classifier's training, by DistributedDataParallel on its share of a batch.

``python classifier_rank.py NORM LAUNCHER OUT`` in each rank's environment; rank 0 writes losses and gradients to OUT.
"""

import sys

import torch
import torch.distributed as dist
from mmengine.config import Config
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import mmgn
from mmgn.engine import distributed
from mmgn.engine.rank_error import one_error

BATCH = 16
NORMS = {"GN": lambda channels: mmgn.FusedGN(channels, 4), "BN": nn.BatchNorm2d}


def train(norm, rank=0, size=1, steps=3):
    """Return the mean loss of each step over all ranks, and the gradients of the first and last."""
    # In float64 no order of summation hides a difference.
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), norm(8), nn.ReLU(), nn.Conv2d(8, 8, 3), norm(8), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).double()
    images, labels = torch.randn(BATCH, 3, 12, 12).double(), torch.randint(5, (BATCH,))
    shard = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
    ddp = DistributedDataParallel(model) if size > 1 else model
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    losses, grads = [], []
    for _ in range(steps):
        loss = nn.functional.cross_entropy(ddp(images[shard]), labels[shard])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        mean = loss.detach() / size
        if size > 1:
            dist.all_reduce(mean)
        losses.append(mean)
        grads.append([p.grad.clone() for p in model.parameters()])
    return torch.stack(losses), grads


@one_error
def main():
    norm, launcher, out = sys.argv[1:]
    distributed.start(Config({"launcher": launcher}))
    found = train(NORMS[norm], dist.get_rank(), dist.get_world_size())
    if dist.get_rank() == 0:
        torch.save(found, out)


if __name__ == "__main__":
    main()
