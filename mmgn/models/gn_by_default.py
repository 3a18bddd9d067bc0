"""What the GN variants of mmdet's classes have in common."""

import inspect
from typing import Any

from torch import nn

from mmgn.models.fusion import fuse_gn


class GNByDefault(nn.Module):
    """First base of a GN variant: FusedGN unless ``norm_cfg`` says otherwise, and the fused path on.

    The second base is the class to vary, one that takes ``norm_cfg``; its arguments are the variant's, in its order.
    ``norm_cfg`` is taken as it stands: with BN, or with None where that is allowed, the variant is its parent.

    Example:
        >>> class GNRegNet(GNByDefault, RegNet):
        ...     pass
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        positional = inspect.signature(super().__init__).bind_partial(*args).arguments
        if "norm_cfg" not in positional:
            kwargs.setdefault("norm_cfg", dict(type="FusedGN", num_groups=32))
        super().__init__(*args, **kwargs)
        fuse_gn(self)
