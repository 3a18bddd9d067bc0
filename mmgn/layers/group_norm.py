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
        round_groups: where C does not split into the groups asked for, take the nearest choice, as
            :func:`nearest_groups` does, in place of an error.
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
        round_groups: bool = False,
        activation: str = "none",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, got {activation!r}.")
        groups = _num_groups(num_channels, num_groups, channels_per_group, round_groups)
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


def nearest_groups(num_channels: int, num_groups: int) -> int:
    """Return ``num_groups`` if it divides ``num_channels``, else the divisor that is nearest in ratio.

    That leaves two channels a group or more: on a 1 x 1 map, one alone has no variance, and its output would be the
    bias. No two divisors are equally near, for what lies between them would divide as well.

    Raises:
        ValueError: not positive integers.

    Example:
        >>> nearest_groups(48, 32), nearest_groups(16, 32), nearest_groups(7, 32)
        (24, 8, 1)
    """
    _check_positive(num_channels=num_channels, num_groups=num_groups)
    return num_groups if num_channels % num_groups == 0 else _nearest_divisor(num_channels, num_groups)


def _nearest_divisor(num_channels: int, num_groups: float) -> int:
    choices = [d for d in divisors(num_channels) if 2 * d <= num_channels] or [1]
    return min(choices, key=lambda d: max(d / num_groups, num_groups / d))


def _num_groups(num_channels: int, num_groups: int, channels_per_group: int | None, round_groups: bool) -> int:
    _check_positive(
        num_channels=num_channels,
        num_groups=num_groups,
        channels_per_group=1 if channels_per_group is None else channels_per_group,
    )
    if channels_per_group is None:
        if num_channels % num_groups == 0:
            return num_groups
        if round_groups:
            return nearest_groups(num_channels, num_groups)
        raise ValueError(f"{divisibility_error(num_channels, num_groups)} round_groups=True takes the nearest.")
    # 32 may come from a config's base, so it does not count as asked for.
    if num_groups != 32:
        raise ValueError(
            "num_groups and channels_per_group exclude each other, "
            f"got num_groups={num_groups} and channels_per_group={channels_per_group}; give one of them."
        )
    if num_channels % channels_per_group == 0:
        return num_channels // channels_per_group
    if round_groups:
        return _nearest_divisor(num_channels, num_channels / channels_per_group)
    raise ValueError(
        f"num_channels must be divisible by channels_per_group, got {num_channels} and "
        f"{channels_per_group}; use channels_per_group in {divisors(num_channels)}, or num_groups=..., or "
        "round_groups=True, which takes the nearest."
    )


def _check_positive(**values: int) -> None:
    for name, value in values.items():
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be a positive integer, got {value!r}.")
