"""A rank of two that builds SharedCocoDataset at the same time: RANK STORE ANNOTATIONS CACHE."""

import json
import sys
from pathlib import Path

import torch.distributed as dist
from mmdet.registry import DATASETS

import mmgn  # noqa: F401  # before mmdet
from mmgn.datasets.digits import CLASSES

rank, store, annotations, cache = sys.argv[1:]
settings = dict(data_prefix=dict(img="images/"), pipeline=[], metainfo=dict(classes=CLASSES), cache_dir=cache)
DATASETS.get("mmdet.SharedCocoDataset")
dist.init_process_group("gloo", init_method=f"file://{store}", rank=int(rank), world_size=2)
dist.barrier()
dataset = DATASETS.build(dict(type="SharedCocoDataset", ann_file=annotations, _scope_="mmdet", **settings))
items = [dataset[i] for i in range(len(dataset))]
mapped = {line.split()[-1] for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(".items")}
# Neither may be gone while the other still reads.
dist.barrier()
print(json.dumps({"items": items, "mapped": "".join(mapped)}))
