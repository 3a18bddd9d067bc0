"""Image files: missing, unreadable, cut off, of another size, or not where they may be."""

import json
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from mmgn.datasets.check import check_dataset


@pytest.mark.parametrize("decode", [False, True])
@pytest.mark.parametrize(
    ("spoil", "kind"),
    [
        (lambda path: path.unlink(), "missing_image"),
        (lambda path: path.write_bytes(b""), "unreadable_image"),
        (lambda path: path.write_bytes(b"no image" * 100), "unreadable_image"),
        (lambda path: path.write_bytes(path.read_bytes()[:20]), "unreadable_image"),
        (lambda path: path.write_bytes(path.read_bytes()[:-500]), "truncated_image"),
        (lambda path: Image.new("RGB", (32, 48)).save(path), "mis_sized_image"),
        (lambda path: (path.unlink(), path.mkdir()), "unreadable_image"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "unreadable_image"),
    ],
    ids=["missing", "empty", "no image", "header cut", "cut", "mis-sized", "folder", "pipe"],
)
@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_a_spoilt_file_is_found_and_nothing_else(suffix, spoil, kind, decode, coco, write):
    for image in coco["images"]:
        image["file_name"] = f"{image['id']}.{suffix}"
    ann_file, img_dir = write(coco)
    spoil(img_dir / f"2.{suffix}")
    found = check_dataset(ann_file, img_dir, decode=decode)
    assert found.counts == {kind: 1}
    assert f"image 2, '2.{suffix}'" in found.text()


def test_pixels_are_looked_at_when_asked(coco, write):
    coco["images"][1]["file_name"] = "2.bmp"
    ann_file, img_dir = write(coco)
    whole = (img_dir / "2.bmp").read_bytes()
    (img_dir / "2.bmp").write_bytes(whole[: len(whole) // 2])
    assert check_dataset(ann_file, img_dir).counts == {}
    assert check_dataset(ann_file, img_dir, decode=True).counts == {"truncated_image": 1}


def test_bytes_after_the_end_are_no_defect(coco, write):
    ann_file, img_dir = write(coco)
    with (img_dir / "1.jpg").open("ab") as file:
        file.write(bytes(100))
    assert check_dataset(ann_file, img_dir).counts == {}


def test_a_turned_photograph_has_the_size_that_opencv_loads(coco, write):
    from mmcv import imread

    ann_file, img_dir = write(coco)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(img_dir / "1.jpg", exif=exif)
    assert imread(str(img_dir / "1.jpg")).shape == (64, 48, 3)
    found = check_dataset(ann_file, img_dir)
    assert found.counts == {"mis_sized_image": 1}
    assert "file 48x64, annotated 64x48 (the sides are swapped)" in found.text()
    coco["images"][0].update(width=48, height=64)
    coco["annotations"] = coco["annotations"][2:]
    write(coco)
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(img_dir / "1.jpg", exif=exif)
    assert check_dataset(ann_file, img_dir).counts == {"image_without_objects": 1}


def test_files_elsewhere_are_not_opened(coco, write, tmp_path):
    ann_file, img_dir = write(coco)
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"no image")
    for name in ("../secret.jpg", str(secret), "a/../../secret.jpg", "1.jpg\0"):
        coco["images"][0]["file_name"] = name
        ann_file.write_text(json.dumps(coco))
        found = check_dataset(ann_file, img_dir)
        assert found.counts == {"unsafe_file_name": 1}


@pytest.mark.parametrize("name", ["\x1b[2J.jpg", "\x9e.jpg", "a" * 300 + ".jpg"], ids=["escape", "c1", "long"])
def test_names_of_files_are_told_as_a_terminal_can_show_them(name, coco, write):
    ann_file, img_dir = write(coco)
    coco["images"][0]["file_name"] = name
    ann_file.write_text(json.dumps(coco))
    lines = check_dataset(ann_file, img_dir).text().splitlines()
    assert len(lines) > 8
    assert all(line.isprintable() and len(line) < 400 for line in lines)


def test_a_decompression_bomb_is_not_unpacked(coco, write):
    ann_file, img_dir = write(coco)
    bomb = (img_dir / "1.jpg").with_suffix(".png")
    Image.new("1", (8, 8)).save(bomb)
    data = bytearray(bomb.read_bytes())
    data[16:24] = (2**16).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    (img_dir / "1.jpg").write_bytes(data)
    found = check_dataset(ann_file, img_dir, decode=True)
    assert found.counts == {"unreadable_image": 1}
    assert "DecompressionBombError" in found.text()
