"""What a launch plan is made for: one call, on one kind of device. Pure Python."""

from dataclasses import dataclass

#: Bytes of an element.
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4}


def saved_for_backward(residual: bool, activation: str) -> str | None:
    """Return which tensor, beside x, undoes the activation: 'y', 'residual' or none.

    Without a residual, x is enough. ReLU's mask can be read off y, which the next layer keeps anyway; SiLU is undone
    from the sum before it, which takes the residual.
    """
    if not residual or activation == "none":
        return None
    return "y" if activation == "relu" else "residual"


@dataclass(frozen=True)
class Device:
    """What of a device a plan depends on.

    Attributes:
        l2_bytes: size of the L2 cache; the default is an H100's.
    """

    l2_bytes: int = 50 * 2**20


@dataclass(frozen=True)
class Problem:
    """One call of group norm.

    Attributes:
        n: samples.
        c: channels.
        s: product of the spatial sizes.
        groups: G, a divisor of c.
        dtype: of the activations: 'float16', 'bfloat16' or 'float32'.
        param_dtype: of weight and bias: 'float32' or ``dtype``.
        layout: 'contiguous' or 'channels_last'.
        activation: 'none', 'relu' or 'silu'.
        residual: whether one is added before the activation.
        weight: whether there is one.
        bias: whether there is one.
        eps: added to the variance.
    """

    n: int
    c: int
    s: int
    groups: int
    dtype: str = "float16"
    param_dtype: str = "float32"
    layout: str = "contiguous"
    activation: str = "none"
    residual: bool = False
    weight: bool = True
    bias: bool = True
    eps: float = 1e-5

    @property
    def d(self) -> int:
        """Channels per group."""
        return self.c // self.groups

    @property
    def m(self) -> int:
        """Elements per group."""
        return self.d * self.s

    @property
    def numel(self) -> int:
        """Elements of x."""
        return self.n * self.c * self.s

    @property
    def itemsize(self) -> int:
        """Bytes of an element of x."""
        return ITEMSIZE[self.dtype]

    @property
    def saved(self) -> str | None:
        """What, beside x, the backward pass needs to undo the activation."""
        return saved_for_backward(self.residual, self.activation)
