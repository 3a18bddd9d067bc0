"""Train and test a config on the CPU and have the launcher, at each norm, do what it does on a GPU, bar the launches.

Prints how many kernels it compiled, how many Triton's cache had, and how many it compiled for a norm of no config.
"""

import json
import sys
from functools import partial
from types import SimpleNamespace

import torch
from triton.runtime import driver

import mmgn
from mmgn.engine import warm_up
from mmgn.engine.config import load_config
from mmgn.ops import functional, fused, library
from mmgn.ops.triton import launcher
from mmgn.ops.triton.ahead import AbsentGPU, Tally


def forward(*args):
    launcher.forward(*args)
    # The values: on a CPU the operator takes the reference maths.
    return library.group_norm(*args)


def backward(*args):
    launcher.backward(*args)
    *args, wanted = args
    grads = library.group_norm_backward(*args, list(wanted))
    return tuple(grad if want else None for grad, want in zip(grads, wanted, strict=True))


config, size, amp, channels_last = json.loads(sys.argv[1])
tally = Tally()
driver.set_active(AbsentGPU(90))
functional._takes_triton = lambda x, backend: backend == "triton"
sys.modules["mmgn.layers.group_norm"].group_norm = partial(mmgn.group_norm, backend="triton")
fused.launcher = SimpleNamespace(**{**vars(launcher), "forward": forward, "backward": backward})

cfg = load_config(config)
model = warm_up.build_fused(cfg)
warm_up.run(model, warm_up.Work.of(cfg, [size], amp, channels_last), torch.device("cpu"))
during = tally.compiled
mmgn.group_norm(torch.zeros(1, 24, 5, 5, dtype=torch.float16), 3, backend="triton")
print(during, tally.found, tally.compiled - during)
