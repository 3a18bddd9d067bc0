"""Where Mask R-CNN R50-FPN (4conv1fc heads) normalises: images of 800 x 1333, padded to 800 x 1344, two of them."""

from dataclasses import dataclass

from mmgn.ops.triton.problem import Problem

IMAGES = 2
GROUPS = 32


@dataclass(frozen=True)
class Shape:
    """One place: what its norm layer sees.

    Attributes:
        name: the place; several where they see the same.
        n: samples: images, or regions of interest.
        c: channels.
        height: of the map.
        width: of the map.
        activation: that follows the norm.
        residual: whether the block's input is added before it.
    """

    name: str
    n: int
    c: int
    height: int
    width: int
    activation: str = "relu"
    residual: bool = False

    @property
    def size(self) -> tuple[int, int, int, int]:
        """(N, C, H, W)."""
        return self.n, self.c, self.height, self.width

    def problem(self, dtype: str = "float16", layout: str = "contiguous") -> Problem:
        """Return what a launch plan is made for."""
        return Problem(
            n=self.n,
            c=self.c,
            s=self.height * self.width,
            groups=GROUPS,
            dtype=dtype,
            layout=layout,
            activation=self.activation,
            residual=self.residual,
        )


#: In mmdet the convolutions of an FPN are followed by a norm alone; a block's last norm by the addition and ReLU.
SHAPES = (
    Shape("stem", IMAGES, 64, 400, 672),
    Shape("res2", IMAGES, 64, 200, 336),
    Shape("res2 out", IMAGES, 256, 200, 336, residual=True),
    Shape("res3", IMAGES, 128, 100, 168),
    Shape("res3 out", IMAGES, 512, 100, 168, residual=True),
    Shape("res4", IMAGES, 256, 50, 84),
    Shape("res4 out", IMAGES, 1024, 50, 84, residual=True),
    Shape("res5", IMAGES, 512, 25, 42),
    Shape("res5 out", IMAGES, 2048, 25, 42, residual=True),
    Shape("FPN P2", IMAGES, 256, 200, 336, activation="none"),
    Shape("FPN P3", IMAGES, 256, 100, 168, activation="none"),
    Shape("FPN P4", IMAGES, 256, 50, 84, activation="none"),
    Shape("FPN P5", IMAGES, 256, 25, 42, activation="none"),
    Shape("FPN P6", IMAGES, 256, 13, 21, activation="none"),
    Shape("box head", IMAGES * 512, 256, 7, 7),
    Shape("mask head", IMAGES * 128, 256, 14, 14),
)
