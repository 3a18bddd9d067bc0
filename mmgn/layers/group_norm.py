"""FusedGN, the layer."""

import torch
from torch import Tensor, nn

from mmgn.ops.functional import divisibility_error, divisors, group_norm
from mmgn.ops.reference import ACTIVATIONS


# A direct subclass: mmengine's initialisers match the names of direct base classes only.
class FusedGN(nn.GroupNorm):
    """Group normalisation that can carry the activation and the residual that follow it.

    An ``nn.GroupNorm`` in every respect (state dict, ``isinstance``, initialisation, weight-decay rules), with the
    channels first in the constructor, as ``mmcv.cnn.build_norm_layer`` passes them. In a config,
    ``norm_cfg=dict(type='FusedGN')`` stands wherever ``dict(type='GN', num_groups=32)`` does.

    Args:
        num_channels: C.
        num_groups: G, a divisor of C; 32 is the paper's choice.
        eps: added to the variance.
        affine: whether there is a learnable weight and bias, (C,) each.
        channels_per_group: C/G, the paper's other way to choose G; takes the place of the default ``num_groups``.
        activation: 'none', 'relu' or 'silu', applied after the norm and the residual.
        device: as in ``nn.GroupNorm``.
        dtype: as in ``nn.GroupNorm``.

    Raises:
        ValueError: channels that do not split into the groups asked for; the message holds the valid choices.

    Example:
        >>> FusedGN(64, activation="relu")(torch.randn(2, 64, 28, 28)).shape
        torch.Size([2, 64, 28, 28])
    """

    def __init__(
        self,
        num_channels: int,
        num_groups: int = 32,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        channels_per_group: int | None = None,
        activation: str = "none",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}.")
        groups = _num_groups(num_channels, num_groups, channels_per_group)
        super().__init__(groups, num_channels, eps=eps, affine=affine, device=device, dtype=dtype)
        self.activation = activation

    def forward(self, input: Tensor, residual: Tensor | None = None, activation: str | None = None) -> Tensor:
        """Return ``act(GN(input) + residual)`` in input's shape, (N, C, *spatial), dtype and memory format.

        ``activation`` takes the place of the layer's own for this call.
        """
        return group_norm(
            input,
            self.num_groups,
            self.weight,
            self.bias,
            self.eps,
            activation=self.activation if activation is None else activation,
            residual=residual,
        )

    def extra_repr(self) -> str:
        """Return nn.GroupNorm's line, with the activation where there is one."""
        suffix = "" if self.activation == "none" else f", activation={self.activation}"
        return super().extra_repr() + suffix


def _num_groups(num_channels: int, num_groups: int, channels_per_group: int | None) -> int:
    for name, value in (
        ("num_channels", num_channels),
        ("num_groups", num_groups),
        ("channels_per_group", 1 if channels_per_group is None else channels_per_group),
    ):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
    if channels_per_group is None:
        if num_channels % num_groups:
            raise divisibility_error(num_channels, num_groups)
        return num_groups
    # 32 may come from a config's base, so it does not count as asked for.
    if num_groups != 32:
        raise ValueError(
            "num_groups and channels_per_group exclude each other, "
            f"got num_groups={num_groups} and channels_per_group={channels_per_group}; give one of them."
        )
    if num_channels % channels_per_group:
        raise ValueError(
            f"num_channels must be divisible by channels_per_group, got {num_channels} and "
            f"{channels_per_group}; use channels_per_group in {divisors(num_channels)}, or num_groups=..."
        )
    return num_channels // channels_per_group
