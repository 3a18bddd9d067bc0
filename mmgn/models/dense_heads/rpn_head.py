"""GNRPNHead, a dense head."""

from typing import Any

from mmcv.cnn import ConvModule
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from torch import Tensor, nn

from mmgn.models.gn_by_default import GNByDefault


class NormRPNHead(RPNHead):
    """mmdet's RPNHead with a norm between its 3x3 convolutions and their ReLU.

    The convolutions become ``ConvModule``: their parameters are ``rpn_conv.conv.*`` and ``rpn_conv.gn.*``, with
    ``rpn_conv.0.`` and so on where ``num_convs`` is more than one.

    Args:
        *args: RPNHead's.
        norm_cfg: the norm; None is RPNHead.
        **kwargs: RPNHead's.
    """

    def __init__(self, *args: Any, norm_cfg: dict[str, Any] | None = None, **kwargs: Any) -> None:
        # The parent's constructor calls _init_layers.
        self.norm_cfg = norm_cfg
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        if self.norm_cfg is None:
            return
        channels = [self.in_channels] + [self.feat_channels] * self.num_convs
        convs = [
            ConvModule(channels[i], channels[i + 1], 3, padding=1, norm_cfg=self.norm_cfg)
            for i in range(self.num_convs)
        ]
        self.rpn_conv = nn.Sequential(*convs) if self.num_convs > 1 else convs[0]
        # init_cfg has the say, as in RPNHead; mmengine would call ConvModule's own init_weights after it.
        self.rpn_conv.is_init = True

    def forward_single(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the scores, (N, anchors, H, W), and the box deltas, (N, 4 * anchors, H, W), of one level."""
        if self.norm_cfg is None:
            return super().forward_single(x)
        # The parent's second ReLU would be one more pass over memory.
        x = self.rpn_conv(x)
        return self.rpn_cls(x), self.rpn_reg(x)


@MODELS.register_module()
class GNRPNHead(GNByDefault, NormRPNHead):
    """mmdet's RPNHead with FusedGN by default, after its 3x3 convolutions; ``norm_cfg=None`` is RPNHead."""
