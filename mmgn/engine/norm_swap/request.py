"""What is asked for: which norm, where in the model, trained from what."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

#: Parts of a detector that can be swapped alone; what is neither backbone nor neck is heads.
PARTS = ("backbone", "neck", "heads")
#: What batch norms are swapped to.
TARGETS = ("FusedGN", "GN")
#: The paper's number of groups.
DEFAULT_GROUPS = 32


@dataclass(frozen=True)
class SwapRequest:
    """What :func:`swap_norm` is to do.

    Attributes:
        to: 'FusedGN', or 'GN' for torch's own.
        num_groups: G in the place of batch norm; None is 32, or the nearest valid choice where 32 does not divide the
            channels. A group norm that is there keeps its own.
        channels_per_group: C/G, in the place of G.
        where: of :data:`PARTS`, those to swap.
        scratch: whether training starts from random weights.

    Raises:
        ValueError: a norm, part or number that there is not, or a combination that makes no sense.
    """

    to: str = "FusedGN"
    num_groups: int | None = None
    channels_per_group: int | None = None
    where: tuple[str, ...] = PARTS
    scratch: bool = False

    def __post_init__(self) -> None:
        if self.to not in TARGETS:
            raise ValueError(
                f"to must be one of {', '.join(TARGETS)}, got {self.to!r}; layer norm is num_groups=1, instance norm "
                "channels_per_group=1."
            )
        unknown = [part for part in self.where if part not in PARTS]
        if unknown or not self.where:
            raise ValueError(f"where must name some of {', '.join(PARTS)}, got {', '.join(unknown) or 'none'}.")
        for name in ("num_groups", "channels_per_group"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, int) or value < 1):
                raise ValueError(f"{name} must be a positive integer, got {value!r}.")
        if self.num_groups is not None and self.channels_per_group is not None:
            raise ValueError(
                f"num_groups and channels_per_group exclude each other, got {self.num_groups} and "
                f"{self.channels_per_group}; give one of them."
            )
        if self.channels_per_group is not None and self.to == "GN":
            raise ValueError("torch's GroupNorm has no channels_per_group; give num_groups, or to='FusedGN'.")
        if self.scratch and "backbone" not in self.where:
            raise ValueError(
                f"from scratch, the backbone's batch norm cannot stay as it is: where must have backbone in it, got "
                f"{', '.join(self.where)}."
            )

    @property
    def explicit(self) -> bool:
        """Whether the groups were asked for, so that no batch norm may become others."""
        return self.num_groups is not None or self.channels_per_group is not None

    @property
    def groups(self) -> dict[str, int]:
        """The groups, as FusedGN's and :func:`mmgn.convert_norm`'s argument."""
        if self.channels_per_group is not None:
            return {"channels_per_group": self.channels_per_group}
        return {"num_groups": self.num_groups or DEFAULT_GROUPS}

    @property
    def norm_cfg(self) -> dict[str, Any]:
        """The ``norm_cfg`` that takes a batch norm's place."""
        return {"type": self.to, **self.groups}

    def in_place_of(self, group_norm: dict[str, Any]) -> dict[str, Any]:
        """Return the ``norm_cfg`` that takes the place of a group norm's: its settings stay.

        Raises:
            ValueError: a FusedGN's setting that torch's own has no word for.
        """
        kept = {key: value for key, value in group_norm.items() if key != "type"}
        # True is what it is without it.
        if kept.get("requires_grad"):
            del kept["requires_grad"]
        if self.to == "GN":
            # Whether there is anything to round, the channels tell.
            kept.pop("round_groups", None)
            if kept.get("activation") == "none":
                del kept["activation"]
            wordless = [f"{key}={kept[key]!r}" for key in ("channels_per_group", "activation") if key in kept]
            if wordless:
                raise ValueError(
                    f"torch's GroupNorm has no {' and no '.join(wordless)}; write it with num_groups and an activation "
                    "of its own, or leave it FusedGN."
                )
            # mmcv has no default.
            kept = {"num_groups": DEFAULT_GROUPS, **kept}
        return {"type": self.to, **kept}

    def wants(self, path: Sequence[Any]) -> bool:
        """Return whether a place is in one of the parts asked for.

        Args:
            path: keys of the model's config, or the words of a module's name.
        """
        return part_of(path) in self.where


def part_of(path: Sequence[Any]) -> str:
    """Return the part that a place in a model is in; the innermost name counts.

    Example:
        >>> part_of(("detector", "teacher_backbone", "norm_cfg")), part_of("roi_head.bbox_head.convs.0.bn".split("."))
        ('backbone', 'heads')
    """
    for key in reversed(path):
        for part in ("backbone", "neck"):
            if str(key).endswith(part):
                return part
    return "heads"
