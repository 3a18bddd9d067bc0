import hashlib
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("sklearn")
from PIL import Image

from mmgn.datasets.digit_images import CONTRAST, NOISE, RANGE, make_digit_images

SIZES = {"num_train": 60, "num_val": 30}


def pixels(root: Path) -> dict[str, np.ndarray]:
    return {str(p.relative_to(root)): np.asarray(Image.open(p), dtype=float) for p in sorted(root.rglob("*.png"))}


def hashes(root: Path) -> dict[str, str]:
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in root.rglob("*.*")}


@pytest.fixture(scope="module")
def lit(tmp_path_factory) -> Path:
    return make_digit_images(tmp_path_factory.mktemp("sets") / "lit", lit=True, **SIZES)


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Path:
    return make_digit_images(tmp_path_factory.mktemp("sets") / "plain", lit=False, **SIZES)


def test_images_lie_in_class_folders_as_many_as_asked_for(lit):
    for split, expected in (("train", 60), ("val", 30)):
        files = list((lit / split).glob("*/*.png"))
        assert len(files) == expected
        assert {p.parent.name for p in files} == set("0123456789")
        assert {np.asarray(Image.open(p)).shape for p in files} == {(28, 28)}


def test_a_file_s_folder_is_its_digit_and_train_and_val_share_none(lit):
    from mmgn.datasets.handwriting import load_handwriting

    digits = load_handwriting()
    for split, rows in zip(("train", "val"), digits.splits, strict=True):
        for file in (lit / split).glob("*/*.png"):
            assert int(file.parent.name) == digits.labels[rows[int(file.stem)]]
    assert set(digits.splits[0]).isdisjoint(digits.splits[1])


def test_lit_and_plain_have_the_same_digits_at_the_same_place_and_the_same_noise(lit, plain):
    bright, dark = pixels(lit), pixels(plain)
    assert bright.keys() == dark.keys()
    faint = 0
    for name, image in bright.items():
        light = Light(image, dark[name])
        assert np.abs(light.residual).max() < 6 * NOISE, name
        # A strong image's noise is explained by the plain one's; a faint one's is left over, and is the same.
        if light.contrast < CONTRAST[1] / 8:
            faint += 1
            seen = dark[name] < RANGE[0] + 5 * NOISE
            assert np.corrcoef(light.residual[seen], dark[name][seen])[0, 1] > 0.9, name
    assert faint > 10


class Light:
    """An image as a plane and a contrast times ink, by least squares."""

    def __init__(self, image: np.ndarray, plain: np.ndarray) -> None:
        y, x = np.mgrid[-1 : 1 : len(plain) * 1j, -1 : 1 : len(plain) * 1j]
        ink = (plain - RANGE[0]) / CONTRAST[1]
        columns = np.stack([np.ones_like(x), x, y, ink], axis=-1).reshape(-1, 4)
        solution = np.linalg.lstsq(columns, image.ravel(), rcond=None)[0]
        self.residual = image - (columns @ solution).reshape(image.shape)
        self.contrast = solution[3]
        self.background = (columns[:, :3] @ solution[:3]).reshape(image.shape)


def test_light_fills_its_ranges_and_next_to_no_pixel_clips(lit, plain):
    dark = pixels(plain)
    fits = [Light(image, dark[name]) for name, image in pixels(lit).items()]
    contrasts = np.array([f.contrast for f in fits])
    assert contrasts.min() > CONTRAST[0] - 4 and contrasts.max() < CONTRAST[1] + 4
    # Log-uniform: as many below the geometric mean as above.
    assert contrasts.min() < 20 and contrasts.max() > 180
    assert 0.35 < np.mean(contrasts < np.sqrt(CONTRAST[0] * CONTRAST[1])) < 0.65
    for f in fits:
        assert f.background.min() > RANGE[0] - 4 and (f.background + f.contrast).max() < RANGE[1] + 4
    assert np.std([f.background.mean() for f in fits]) > 30
    assert np.median([np.ptp(f.background) for f in fits]) > 30
    for image in (*dark.values(), *pixels(lit).values()):
        assert np.isin(image, (0, 255)).mean() < 0.01
    for image in dark.values():
        assert np.median(image) == pytest.approx(RANGE[0], abs=3) and image.max() == pytest.approx(RANGE[1], abs=12)


def test_the_light_is_the_image_s_own_statistics(lit, plain):
    """What a norm over a tiny batch goes by varies between lit images, and hardly between plain ones."""
    spread = {root: [image.std() for image in pixels(root).values()] for root in (lit, plain)}
    assert np.std(np.log(spread[lit])) > 4 * np.std(np.log(spread[plain]))


def test_same_arguments_give_the_same_bytes_and_a_larger_set_begins_with_the_smaller(lit, tmp_path):
    assert hashes(make_digit_images(tmp_path / "again", lit=True, **SIZES)) == hashes(lit)
    other = hashes(make_digit_images(tmp_path / "other", lit=True, **SIZES, seed=1))
    images = [name for name in other if name.endswith(".png")]
    before = hashes(lit)
    assert all(other[name] != before[name] for name in images)
    larger = hashes(make_digit_images(tmp_path / "larger", lit=True, num_train=70, num_val=30))
    assert all(larger[name] == before[name] for name in images)


def test_the_set_is_reused_and_never_overwritten(lit, tmp_path):
    before = {p: p.stat().st_mtime_ns for p in lit.rglob("*")}
    assert make_digit_images(lit, lit=True, **SIZES) == lit
    assert {p: p.stat().st_mtime_ns for p in lit.rglob("*")} == before
    with pytest.raises(FileExistsError, match=r"'lit': True.*not with.*'lit': False"):
        make_digit_images(lit, lit=False, **SIZES)
    (tmp_path / "cat.jpg").write_bytes(b"cat")
    with pytest.raises(FileExistsError, match=r"is not a digit images data set .*no readable digit_images\.json"):
        make_digit_images(tmp_path, lit=True, **SIZES)
    small = make_digit_images(tmp_path / "small", lit=True, num_train=10, num_val=10)
    next(small.glob("val/*/*.png")).unlink()
    with pytest.raises(FileExistsError, match=r"has 9 files val/\*/\*\.png where digit_images\.json promises 10"):
        make_digit_images(small, lit=True, num_train=10, num_val=10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_train": 9}, "num_train must be an int at least 10, got 9"),
        ({"num_val": 2.5}, r"num_val must be an int at least 10, got 2\.5"),
        ({"image_size": 8}, "image_size must be an int at least 16, got 8"),
        ({"seed": -1}, "seed must be an int at least 0, got -1"),
    ],
)
def test_wrong_arguments_are_named_with_their_values(tmp_path, arguments, message):
    with pytest.raises(ValueError, match=message):
        make_digit_images(tmp_path / "digits", lit=True, **arguments)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("side", [16, 64])
def test_a_digit_lies_within_the_image_whatever_the_size(tmp_path, side):
    root = make_digit_images(tmp_path / "digits", lit=False, num_train=20, num_val=10, image_size=side)
    for name, image in pixels(root).items():
        rows, columns = np.nonzero(image > 128)
        assert image.shape == (side, side), name
        assert 0.5 * side < rows.max() - rows.min() + 1 < 0.95 * side, name
        assert abs(rows.min() + rows.max() + 1 - side) <= 0.24 * side and abs(columns.mean() - side / 2) < 0.25 * side


def test_mmpretrain_reads_it(lit):
    pytest.importorskip("mmpretrain")
    from mmpretrain.datasets import CustomDataset
    from mmpretrain.utils import register_all_modules

    register_all_modules(init_default_scope=True)
    pipeline = [{"type": "LoadImageFromFile", "color_type": "grayscale"}, {"type": "PackInputs"}]
    dataset = CustomDataset(data_root=str(lit), data_prefix="train", pipeline=pipeline)
    assert len(dataset) == 60 and list(dataset.CLASSES) == list("0123456789")
    for index in (0, 31, 59):
        sample = dataset[index]
        file = Path(sample["data_samples"].img_path)
        assert sample["data_samples"].gt_label.item() == int(file.parent.name)
        assert np.array_equal(sample["inputs"][0].numpy(), np.asarray(Image.open(file)))
