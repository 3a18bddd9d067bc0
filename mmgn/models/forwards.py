"""The forwards of torch, mmcv and mmdet that :func:`mmgn.fuse_gn` knows, with norm and activation as one call."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmgn.layers import FusedGN
from mmgn.models.fused_forward import FusedForward, Site, norm_act, obstacle, own_class


class ConvModuleForward(FusedForward):
    """mmcv's ConvModule."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        if module.with_norm:
            act = module.activate if module.with_activation else None
            known = module.order == ("conv", "norm", "act")
            yield Site(module.norm_name, module.norm, act, obstacle="" if known else f"order is {module.order}")

    def forward(self: Any, x: Tensor, activate: bool = True, norm: bool = True) -> Tensor:
        """Convolve, normalise and activate; anything less is left to mmcv."""
        if not (activate and norm and self.with_activation and self.with_norm):
            return super().forward(x, activate, norm)
        if self.with_explicit_padding:
            x = self.padding_layer(x)
        return norm_act(self.norm, self.activate, self.conv(x))


class SequentialForward(FusedForward):
    """torch's Sequential, and mmengine's."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        # named_children() would leave out the second use of a child.
        children = [*module._modules.items(), ("", None)]
        for (name, norm), (_, act) in pairwise(children):
            if isinstance(norm, FusedGN):
                yield Site(name, norm, act)

    def forward(self: Any, input: Any) -> Any:
        """Call one after the other, a norm together with its activation."""
        children = list(self._modules.values())
        while children:
            child = children.pop(0)
            if children and not obstacle(child, children[0]):
                input = norm_act(child, children.pop(0), input)
            else:
                input = child(input)
        return input


class ResNetForward(FusedForward):
    """mmdet's ResNet, for its stem. A deep stem is a Sequential."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        if not module.deep_stem:
            yield Site(module.norm1_name, module.norm1, module.relu)

    def forward(self: Any, x: Tensor) -> tuple[Tensor, ...]:
        """Return the features at ``out_indices``."""
        x = self.maxpool(norm_act(self.norm1, self.relu, self.conv1(x)))
        outs = []
        for i, layer_name in enumerate(self.res_layers):
            x = getattr(self, layer_name)(x)
            if i in self.out_indices:
                outs.append(x)
        return tuple(outs)


class BasicBlockForward(FusedForward):
    """mmdet's BasicBlock, of ResNet-18 and ResNet-34."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        yield Site(module.norm1_name, module.norm1, module.relu)
        yield Site(module.norm2_name, module.norm2, module.relu, residual=True)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of (N, planes, H / stride, W / stride)."""
        return _checkpointed(_basic_block, self, x)


class BottleneckForward(FusedForward):
    """mmdet's Bottleneck, of ResNet, ResNeXt and RegNet."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        yield Site(module.norm1_name, module.norm1, module.relu)
        yield Site(module.norm2_name, module.norm2, module.relu)
        yield _last_site(module)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of (N, planes * expansion, H / stride, W / stride)."""
        return _checkpointed(_bottleneck, self, x)


class Bottle2neckForward(FusedForward):
    """mmdet's Bottle2neck, of Res2Net."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        yield Site(module.norm1_name, module.norm1, module.relu)
        for i, norm in enumerate(module.bns):
            yield Site(f"bns.{i}", norm, module.relu)
        yield _last_site(module)

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of (N, planes * expansion, H / stride, W / stride)."""
        return _checkpointed(_bottle2neck, self, x)


# A subclass that inherits one of these is as well known as its parent.
_FORWARDS: dict[tuple[str, str], type[FusedForward]] = {
    ("torch.nn.modules.container", "Sequential.forward"): SequentialForward,
    ("mmcv.cnn.bricks.conv_module", "ConvModule.forward"): ConvModuleForward,
    ("mmdet.models.backbones.resnet", "ResNet.forward"): ResNetForward,
    ("mmdet.models.backbones.resnet", "BasicBlock.forward"): BasicBlockForward,
    ("mmdet.models.backbones.resnet", "Bottleneck.forward"): BottleneckForward,
    ("mmdet.models.backbones.res2net", "Bottle2neck.forward"): Bottle2neckForward,
}


def known_forward(module: nn.Module) -> type[FusedForward] | None:
    """Return what replaces the module's forward, None where that is not one of those known here."""
    forward: Any = own_class(module).forward
    # functools.wraps copies the name.
    if hasattr(forward, "__wrapped__") or ("forward" in module.__dict__ and not isinstance(module, FusedForward)):
        return None
    return _FORWARDS.get((getattr(forward, "__module__", ""), getattr(forward, "__qualname__", "")))


def sites(module: nn.Module) -> list[Site]:
    """Return the FusedGN that ``module`` calls in a known forward, in the order of the calls."""
    known = known_forward(module)
    return [site for site in known._sites(module) if isinstance(site.norm, FusedGN)] if known else []


def _checkpointed(forward: Callable[[Any, Tensor], Tensor], block: Any, x: Tensor) -> Tensor:
    if block.with_cp and x.requires_grad:
        return checkpoint(forward, block, x, use_reentrant=False)
    return forward(block, x)


def _basic_block(block: Any, x: Tensor) -> Tensor:
    out = norm_act(block.norm1, block.relu, block.conv1(x))
    return norm_act(block.norm2, block.relu, block.conv2(out), _shortcut(block, x))


def _bottleneck(block: Any, x: Tensor) -> Tensor:
    out = _plugins(block, "after_conv1", norm_act(block.norm1, block.relu, block.conv1(x)))
    out = _plugins(block, "after_conv2", norm_act(block.norm2, block.relu, block.conv2(out)))
    return _last(block, x, block.conv3(out))


def _bottle2neck(block: Any, x: Tensor) -> Tensor:
    out = _plugins(block, "after_conv1", norm_act(block.norm1, block.relu, block.conv1(x)))
    *splits, rest = out.split(block.width, 1)
    outs: list[Tensor] = []
    for split, conv, norm in zip(splits, block.convs, block.bns, strict=True):
        if outs and block.stage_type != "stage":
            split = outs[-1] + split
        outs.append(norm_act(norm, block.relu, conv(split.contiguous())))
    outs.append(block.pool(rest) if block.stage_type == "stage" and block.conv2_stride != 1 else rest)
    out = _plugins(block, "after_conv2", torch.cat(outs, 1))
    return _last(block, x, block.conv3(out))


def _last(block: Any, x: Tensor, out: Tensor) -> Tensor:
    """Return what a bottleneck with input ``x`` makes of ``out``, conv3's output."""
    if block.with_plugins and block.after_conv3_plugin_names:
        out = _plugins(block, "after_conv3", block.norm3(out))
        out += _shortcut(block, x)
        return block.relu(out)
    return norm_act(block.norm3, block.relu, out, _shortcut(block, x))


def _last_site(block: Any) -> Site:
    plugins = block.with_plugins and block.after_conv3_plugin_names
    between = "a plugin comes before the residual" if plugins else ""
    return Site(block.norm3_name, block.norm3, block.relu, residual=True, obstacle=between)


def _plugins(block: Any, position: str, x: Tensor) -> Tensor:
    return block.forward_plugin(x, getattr(block, f"{position}_plugin_names")) if block.with_plugins else x


def _shortcut(block: Any, x: Tensor) -> Tensor:
    return x if block.downsample is None else block.downsample(x)
