"""The annotation checker: what it says of any file, and that its quick check says the same."""

import json
from pathlib import Path
from random import Random

from PIL import Image

from fuzzing import trees
from mmgn.datasets.check import check_dataset, check_quickly

CLASSES = ("cat", "dog")
# Kinds of defects that the quick check leaves to the full one.
_FULL = ("polygon", "rle", "mask", "malformed_segmentation", "area_mismatch", "duplicate_key")
mutate = trees.mutate


def fresh(rng: Random) -> bytes:
    """Return a sound file of a few images and objects, polygons and run-length encodings."""
    images = [{"id": i + 1, "file_name": f"{i + 1}.png", "width": 8, "height": 6} for i in range(rng.randint(1, 3))]
    annotations = []
    for number in range(rng.randint(0, 4)):
        x, y, w, h = rng.randint(0, 4), rng.randint(0, 3), rng.randint(1, 4), rng.randint(1, 3)
        masks = (
            [[x, y, x + w, y, x + w, y + h, x, y + h]],
            {"size": [6, 8], "counts": [6 * x + y, *([h, 6 - h] * (w - 1)), h, 48 - 6 * (x + w - 1) - y - h]},
            {"size": [6, 8], "counts": rng.choice(("07222N0l0", "R1", "4421O"))},
            None,
        )
        annotations.append(
            {
                **{"id": number + 1, "image_id": rng.choice(images)["id"], "category_id": rng.randint(1, 2)},
                **{"bbox": [x, y, w, h], "area": w * h, "iscrowd": rng.choice((0, 0, 1))},
                "segmentation": rng.choice(masks),
            }
        )
    categories = [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)]
    return trees.write({"images": images, "annotations": annotations, "categories": categories})


def check(data: bytes, folder: Path) -> None:
    """Check a file both ways, with the images there are."""
    ann_file, images = folder / "annotations.json", folder / "images"
    images.mkdir(exist_ok=True)
    ann_file.write_bytes(data)
    if not (images / "1.png").exists():
        Image.new("RGB", (8, 6)).save(images / "1.png")
        (images / "2.png").write_bytes((images / "1.png").read_bytes()[:50])
    full = check_dataset(ann_file, images, classes=CLASSES, decode=True, jobs=1)
    # The quick check looks at some of the files, unless there are few.
    quick = check_quickly(ann_file, images, classes=CLASSES, images=len(data))
    for findings in (full, quick):
        text = findings.text()
        # As a terminal takes it; each finding is for a person to read.
        text.encode()
        for line in text.splitlines():
            assert line.isprintable() and len(line) < 1500, f"not for a terminal: {line!r:.200}"
        json.dumps(findings.as_dict(), allow_nan=False)
    # What is within polygons, be it JSON or not, the quick check does not look at.
    if "malformed_file" not in full.counts:
        told = [{k: v for k, v in found.counts.items() if not k.startswith(_FULL)} for found in (full, quick)]
        assert told[0] == told[1], f"the full check tells {told[0]}, the quick one {told[1]}"
