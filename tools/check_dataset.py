"""Check COCO annotations and their images for what would break training or corrupt AP.

Exit status: 0 without errors (warnings are no errors), 1 with, 2 where there is nothing to check.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mmengine.config import DictAction

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.datasets.check import KINDS, check_dataset
from mmgn.engine.config import load_config
from mmgn.engine.data import SPLITS, datasets, find_ann_file, find_classes, find_img_dir
from mmgn.engine.disk import readable


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    kinds = "\n".join(f"  {level:8} {kind:24} {meaning}" for kind, (level, meaning) in KINDS.items())
    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, epilog=f"looks for:\n{kinds}", formatter_class=formatter)
    parser.add_argument("ann_file", nargs="?", type=Path, help="annotation file; or --config")
    parser.add_argument("--img-dir", type=Path, help="folder of its images; without it they are not looked at")
    parser.add_argument("--config", help="check this config's data sets, and its classes: a path, or mmdet::PATH")
    parser.add_argument("--split", choices=SPLITS, help="of the config; all of them without")
    parser.add_argument("--data-root", metavar="DIR", help="folder of the data, over the config's data_root")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings, as key=value")
    parser.add_argument("--decode", action="store_true", help="read all pixels of every image, not the headers alone")
    parser.add_argument("--jobs", type=int, help="threads that read images [default: one a core]")
    parser.add_argument("--examples", type=int, default=3, help="how many to show of each kind [default: 3]")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write the findings to this file, too")
    args = parser.parse_args()
    if (args.ann_file is None) == (args.config is None):
        parser.error("give either an annotation file or --config")
    for name, least in (("jobs", 1), ("examples", 0)):
        if (value := getattr(args, name)) is not None and value < least:
            parser.error(f"--{name} must be at least {least}, got {value}")
    for path in (args.img_dir, args.json and args.json.parent):
        if path is not None and not path.is_dir():
            parser.error(f"no folder {path}")
    try:
        args.sources = list(find_sources(args))
    except (FileNotFoundError, ValueError) as error:
        parser.error(str(error))
    return args


def find_sources(args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield what to check: annotation file, image folder and classes.

    Raises:
        FileNotFoundError: a config, file or folder is not there.
        ValueError: a config that cannot be read, or has no data set in COCO's format.
    """
    sources: list[tuple[Any, Any, Any]]
    if args.config is None:
        sources = [(args.ann_file, args.img_dir, None)]
    else:
        cfg = load_config(args.config, options=args.cfg_options, data_root=args.data_root)
        splits = [args.split] if args.split else SPLITS
        found = [dataset for split in splits for _, dataset in datasets(cfg, split)]
        classes = [find_classes(dataset, cfg) for dataset in found]
        # Val and test are often one.
        sources = list(
            dict.fromkeys(
                (ann_file, args.img_dir or find_img_dir(dataset), names)
                for dataset, names in zip(found, classes, strict=True)
                if names is not None and (ann_file := find_ann_file(dataset)) is not None
            )
        )
        if not sources:
            raise ValueError(f"{args.config} has no data set in COCO's format on this machine, in {', '.join(splits)}")
    for ann_file, img_dir, names in sources:
        if not ann_file.is_file():
            raise FileNotFoundError(f"no annotation file {ann_file}")
        if img_dir is not None and not img_dir.is_dir():
            raise FileNotFoundError(f"no image folder {img_dir}")
        yield dict(ann_file=ann_file, img_dir=img_dir, classes=names)


@readable
def main() -> None:
    """Check."""
    args = parse_args()
    found = []
    for source in args.sources:
        try:
            found.append(check_dataset(**source, decode=args.decode, jobs=args.jobs, examples=args.examples))
        except OSError as error:
            raise SystemExit(f"check_dataset.py: {error}") from None
        print(f"{found[-1].text()}\n")
    if args.json is not None:
        args.json.write_text(json.dumps([findings.as_dict() for findings in found], indent=2) + "\n")
    raise SystemExit(any(findings.errors for findings in found))


if __name__ == "__main__":
    main()
