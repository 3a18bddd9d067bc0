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
        layers: norm layers of the model that see this, 69 in all.
    """

    name: str
    n: int
    c: int
    height: int
    width: int
    activation: str = "relu"
    residual: bool = False
    layers: int = 1

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


#: In mmdet the convolutions of an FPN and of a shortcut are followed by a norm alone, a block's last norm by the
#: addition and ReLU; a stage's first convolution sees the stage before. FPN's P6 is RetinaNet's: Mask R-CNN pools it.
SHAPES = (
    Shape("stem", IMAGES, 64, 400, 672),
    Shape("res2", IMAGES, 64, 200, 336, layers=6),
    Shape("res2 out", IMAGES, 256, 200, 336, residual=True, layers=3),
    Shape("res3 in", IMAGES, 128, 200, 336),
    Shape("res3", IMAGES, 128, 100, 168, layers=7),
    Shape("res3 out", IMAGES, 512, 100, 168, residual=True, layers=4),
    Shape("res3 shortcut", IMAGES, 512, 100, 168, activation="none"),
    Shape("res4 in", IMAGES, 256, 100, 168),
    Shape("res4", IMAGES, 256, 50, 84, layers=11),
    Shape("res4 out", IMAGES, 1024, 50, 84, residual=True, layers=6),
    Shape("res4 shortcut", IMAGES, 1024, 50, 84, activation="none"),
    Shape("res5 in", IMAGES, 512, 50, 84),
    Shape("res5", IMAGES, 512, 25, 42, layers=5),
    Shape("res5 out", IMAGES, 2048, 25, 42, residual=True, layers=3),
    Shape("res5 shortcut", IMAGES, 2048, 25, 42, activation="none"),
    Shape("FPN P2, res2 shortcut", IMAGES, 256, 200, 336, activation="none", layers=3),
    Shape("FPN P3", IMAGES, 256, 100, 168, activation="none", layers=2),
    Shape("FPN P4", IMAGES, 256, 50, 84, activation="none", layers=2),
    Shape("FPN P5", IMAGES, 256, 25, 42, activation="none", layers=2),
    Shape("FPN P6", IMAGES, 256, 13, 21, activation="none", layers=0),
    Shape("box head", IMAGES * 512, 256, 7, 7, layers=4),
    Shape("mask head", IMAGES * 128, 256, 14, 14, layers=4),
)
