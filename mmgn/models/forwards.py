"""The forwards of torch, mmcv, mmdet, mmseg and mmpretrain that :func:`mmgn.fuse_gn` knows, with one call for two."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmgn.layers import FusedGN
from mmgn.models.fused_forward import FusedForward, Site, hooked, norm_act, obstacle, own_class


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
    """ResNet of mmdet, mmseg and mmpretrain, for its stem. A deep stem is a Sequential."""

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
    """BasicBlock of mmdet, mmseg and mmpretrain, in ResNet-18 and ResNet-34."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        yield Site(module.norm1_name, module.norm1, module.relu)
        yield _last_site(module, "norm2")

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of (N, planes, H / stride, W / stride)."""
        return _checkpointed(_basic_block, self, x)


class BottleneckForward(FusedForward):
    """Bottleneck of mmdet, mmseg and mmpretrain, in ResNet, ResNeXt and RegNet."""

    @staticmethod
    def _sites(module: Any) -> Iterator[Site]:
        yield Site(module.norm1_name, module.norm1, module.relu)
        yield Site(module.norm2_name, module.norm2, module.relu)
        yield _last_site(module, "norm3")

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
        yield _last_site(module, "norm3")

    def forward(self, x: Tensor) -> Tensor:
        """Return the block's output, of (N, planes * expansion, H / stride, W / stride)."""
        return _checkpointed(_bottle2neck, self, x)


# A subclass that inherits one of these is as well known as its parent.
_FORWARDS: dict[tuple[str, str], type[FusedForward]] = {
    ("torch.nn.modules.container", "Sequential.forward"): SequentialForward,
    ("mmcv.cnn.bricks.conv_module", "ConvModule.forward"): ConvModuleForward,
    **{
        (f"{package}.models.backbones.resnet", f"{name}.forward"): forward
        for package in ("mmdet", "mmseg", "mmpretrain")
        for name, forward in (
            ("ResNet", ResNetForward),
            ("BasicBlock", BasicBlockForward),
            ("Bottleneck", BottleneckForward),
        )
    },
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
    return _last(block, x, block.norm2, block.conv2(out))


def _bottleneck(block: Any, x: Tensor) -> Tensor:
    out = _plugins(block, "after_conv1", norm_act(block.norm1, block.relu, block.conv1(x)))
    out = _plugins(block, "after_conv2", norm_act(block.norm2, block.relu, block.conv2(out)))
    return _last(block, x, block.norm3, block.conv3(out))


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
    return _last(block, x, block.norm3, block.conv3(out))


def _last(block: Any, x: Tensor, norm: nn.Module, out: Tensor) -> Tensor:
    """Return what a block with input ``x`` makes of ``out``, the output of its last convolution."""
    if _between(block):
        out = _plugins(block, "after_conv3", norm(out))
        out = block.drop_path(out) if hasattr(block, "drop_path") else out
        out += _shortcut(block, x)
        return block.relu(out)
    return norm_act(norm, block.relu, out, _shortcut(block, x))


def _last_site(block: Any, norm: str) -> Site:
    name = getattr(block, f"{norm}_name")
    return Site(name, getattr(block, norm), block.relu, residual=True, obstacle=_between(block))


def _between(block: Any) -> str:
    """Tell what comes between a block's last norm and the addition of the residual; '' for nothing."""
    if getattr(block, "with_plugins", False) and block.after_conv3_plugin_names:
        return "a plugin comes before the residual"
    # mmpretrain's, an identity at a rate of 0.
    drop_path = getattr(block, "drop_path", None)
    drops = drop_path is not None and (type(drop_path) is not nn.Identity or hooked(drop_path))
    return "stochastic depth comes before the residual" if drops else ""


def _plugins(block: Any, position: str, x: Tensor) -> Tensor:
    # mmpretrain's blocks have none.
    plugins = getattr(block, "with_plugins", False)
    return block.forward_plugin(x, getattr(block, f"{position}_plugin_names")) if plugins else x


def _shortcut(block: Any, x: Tensor) -> Tensor:
    return x if block.downsample is None else block.downsample(x)
