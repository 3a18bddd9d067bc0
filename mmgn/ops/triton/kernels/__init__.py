"""The kernels by the names a plan uses: '<layout>.<kernel>', or '<kernel>' where the layout does not matter."""

from mmgn.ops.triton.kernels import (
    channels_last_backward,
    channels_last_forward,
    contiguous_backward,
    contiguous_forward,
    finalize,
)

KERNELS = {"finalize": finalize.finalize, "finalize_backward": finalize.finalize_backward}
for _layout, _forward, _backward in (
    ("contiguous", contiguous_forward, contiguous_backward),
    ("channels_last", channels_last_forward, channels_last_backward),
):
    for _name in ("whole_forward", "statistics", "apply"):
        KERNELS[f"{_layout}.{_name}"] = getattr(_forward, _name)
    for _name in ("whole_backward", "reduce", "apply_backward"):
        KERNELS[f"{_layout}.{_name}"] = getattr(_backward, _name)
