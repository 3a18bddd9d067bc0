"""Images that are no images, cut off, endless or far larger than their files: checked, predicted, trained on."""

import io
import json
import os
import resource
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("mmdet")

from mmgn.datasets.check import check_dataset
from mmgn.datasets.check.images import ImageError
from mmgn.engine.inference import read_image

#: What cannot be read -> the kind of defect that it is.
BROKEN = {
    "bomb.png": "unreadable_image",
    "text.jpg": "unreadable_image",
    "picture.svg.jpg": "unreadable_image",
    "empty.jpg": "unreadable_image",
    "folder.jpg": "unreadable_image",
    "pipe.jpg": "unreadable_image",
    "device.jpg": "unreadable_image",
    "cut.jpg": "truncated_image",
    "cut.png": "truncated_image",
    "gone.jpg": "missing_image",
}
SOUND = {"jpeg.jpg": "JPEG", "png.jpg": "PNG", "many-pages.jpg": "TIFF", "moving.jpg": "GIF", "webp.jpg": "WEBP"}


def bomb(side):
    """A black PNG of side x side pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    packer, pixels = zlib.compressobj(9), io.BytesIO()
    for _ in range(side):
        pixels.write(packer.compress(bytes(side // 8 + 1)))
    pixels.write(packer.flush())
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    parts = (b"IHDR", header), (b"IDAT", pixels.getvalue()), (b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    for name, kind in SOUND.items():
        picture.save(folder / name, kind, **({"save_all": True, "append_images": [picture]} if "m" in name[:1] else {}))
    for name, whole in (("cut.jpg", "jpeg.jpg"), ("cut.png", "png.jpg")):
        (folder / name).write_bytes((folder / whole).read_bytes()[:1500])
    (folder / "bomb.png").write_bytes(bomb(30_000))
    (folder / "text.jpg").write_text("hello")
    (folder / "picture.svg.jpg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    (folder / "empty.jpg").touch()
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    (folder / "device.jpg").symlink_to("/dev/zero")
    return folder


@pytest.fixture
def bounded():
    """Half a gigabyte is the most that a test may take; the bomb's pixels are 2.7."""
    # The peak is from now on, not that of earlier tests.
    Path("/proc/self/clear_refs").write_text("5")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000


@pytest.mark.parametrize("decode", [False, True])
def test_checked(folder, tmp_path, decode, bounded):
    names = [*BROKEN, *SOUND]
    images = [{"id": number, "file_name": name, "width": 64, "height": 64} for number, name in enumerate(names, 1)]
    ann_file = tmp_path / "annotations.json"
    ann_file.write_text(json.dumps({"images": images, "annotations": [], "categories": [{"id": 1, "name": "a"}]}))
    found = check_dataset(ann_file, folder, decode=decode, examples=len(names))
    told = {
        name: kind for kind in set(BROKEN.values()) for name in names for text in found.examples[kind] if name in text
    }
    assert told == BROKEN
    assert sum(found.errors.values()) == len(BROKEN)


def test_predicted_or_left_out(folder, bounded):
    for name, kind in BROKEN.items():
        with pytest.raises(ImageError) as caught:
            read_image(folder / name)
        assert caught.value.kind == kind
    assert {read_image(folder / name).shape for name in SOUND} == {(64, 64, 3)}
    for name, why in (("bomb.png", "exceeds limit of .* pixels"), ("text.jpg", "cannot identify image file")):
        with pytest.raises(ImageError, match=why):
            read_image(folder / name)


def test_predictions_leave_out_and_tell(folder, fitted, tmp_path, call_tool, bounded):
    config = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
    inputs = [folder / name for name in (*BROKEN, *SOUND) if name not in ("gone.jpg", "folder.jpg")]
    flags = ["--out", tmp_path / "out", "--device", "cpu"]
    status, said = call_tool(fitted, "predict.py", config, "fitted.pth", *inputs, *flags)
    assert status == 1
    assert f"{len(BROKEN) - 2} of {len(inputs)} images cannot be read" in said
    assert "bomb.png: DecompressionBombError: Image size (900000000 pixels) exceeds limit" in said
    shown = {path.name for path in (tmp_path / "out/pictures").iterdir()}
    assert shown == {*SOUND}


def test_no_picture_lies_outside(folder, fitted, tmp_path, call_tool):
    """By ``..`` in a path it did, over the very image that was given."""
    config = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
    inner = tmp_path / "a/b"
    inner.mkdir(parents=True)
    for path in (tmp_path / "y.png", inner / "x.png"):
        Image.new("RGB", (64, 64)).save(path)
    before = (tmp_path / "y.png").read_bytes()
    flags = ["--out", tmp_path / "out", "--device", "cpu"]
    paths = inner / "x.png", f"{inner}/../../y.png"
    status, said = call_tool(fitted, "predict.py", config, "fitted.pth", *paths, *flags)
    assert status == 0, said
    assert (tmp_path / "y.png").read_bytes() == before
    pictures = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")}
    assert pictures == {"y.png", "a/b/x.png", "out/pictures/y.png", "out/pictures/a/b/x.png"}


@pytest.mark.parametrize(("name", "says"), [("text.jpg", "failed to load image: "), ("empty.jpg", "imdecode")])
def test_training_ends_with_its_name(name, says, folder, tmp_path, call_tool):
    from mmgn.datasets.digits import make_digits

    config = "digits/mask-rcnn_r18-mini_fpn_fusedgn-all_digits.py"
    make_digits(tmp_path / "data/digits", num_train=4, num_val=1)
    broken = sorted((tmp_path / "data/digits/train").iterdir())[-1]
    broken.write_bytes((folder / name).read_bytes())
    settings = ["train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
    status, said = call_tool(tmp_path, "train.py", config, "--skip-preflight", "--cfg-options", *settings)
    assert status == 1
    last = said.splitlines()[-1]
    assert "an image of the data set cannot be read: " in last and says in last, said
    assert "tools/check_dataset.py --config" in last
    assert name == "empty.jpg" or broken.name in last
