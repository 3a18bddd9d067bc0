"""DeviceAmpOptimWrapper: mmengine's mixed precision on any device, with a dtype that needs no scaler as well."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import AmpOptimWrapper, OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@OPTIM_WRAPPERS.register_module()
class DeviceAmpOptimWrapper(AmpOptimWrapper):
    """``AmpOptimWrapper`` that also runs on a CPU, and scales the loss only where float16 asks for it.

    The device is that of the optimizer's parameters. Checkpoints go from either dtype to the other: those of
    bfloat16 hold no scale, and float16 then begins with its first one.

    Args:
        loss_scale: 'dynamic', a fixed scale, or the arguments of ``torch.amp.GradScaler``; for float16.
        dtype: 'float16' or 'bfloat16'; None is float16.
        **kwargs: of ``OptimWrapper``.

    Raises:
        ValueError: another dtype, or bfloat16 on a GPU that has none.

    Example:
        >>> optim_wrapper = dict(type="DeviceAmpOptimWrapper", dtype="bfloat16", optimizer=dict(type="SGD", lr=0.02))
    """

    def __init__(self, loss_scale: str | float | dict[str, Any] = "dynamic", dtype: Any = None, **kwargs: Any) -> None:
        # Past the parent's, which refuses a CPU.
        OptimWrapper.__init__(self, **kwargs)
        name = str(dtype or "float16").removeprefix("torch.")
        if name not in DTYPES:
            raise ValueError(f"dtype of mixed precision must be one of {', '.join(DTYPES)}, got {dtype!r}")
        self.cast_dtype = DTYPES[name]
        self.device_type = self.optimizer.param_groups[0]["params"][0].device.type
        scales = self.cast_dtype == torch.float16
        if not scales and self.device_type == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False):
            raise ValueError(f"{torch.cuda.get_device_name()} has no bfloat16; use float16 (--amp-dtype fp16)")
        self._scale_update_param = loss_scale if isinstance(loss_scale, (int, float)) else None
        if isinstance(loss_scale, dict):
            options = loss_scale
        else:
            options = {} if loss_scale == "dynamic" else {"init_scale": float(loss_scale)}
        self.loss_scaler = torch.amp.GradScaler(self.device_type, enabled=scales, **options)

    def state_dict(self) -> dict[str, Any]:
        """Return the optimizer's state, and the scaler's where there is one."""
        state: dict[str, Any] = super().state_dict()
        if not self.loss_scaler.is_enabled():
            del state["loss_scaler"]
        return state

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Cast, and leave out what gradient accumulation need not synchronise."""
        # mmengine's own autocast refuses float16 on a CPU.
        with OptimWrapper.optim_context(self, model), torch.autocast(self.device_type, self.cast_dtype):
            yield
