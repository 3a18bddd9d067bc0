"""Predict with a trained detector: pictures with boxes and masks, and COCO results.

Writes DIR/pictures/..., DIR/predictions.json (COCO results, boxes and masks of all scores) and DIR/images.json (which
image and which category an id stands for, as in COCO annotations). Images that cannot be read are left out, told at the
end, and make the exit status 1.

    python tools/predict.py configs/... epoch_24.pth photo.jpg folder/ 'more/*.png' --out predicted
"""

import argparse
from pathlib import Path

import torch

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.compat.checkpoint import CheckpointError
from mmgn.engine.config import load_config
from mmgn.engine.disk import told
from mmgn.engine.inference import Predictor, find_images, write_predictions
from mmgn.engine.test_options import check_writable
from mmgn.report.predictions import read_annotations


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("images", nargs="+", help="images, folders of images, patterns")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write")
    parser.add_argument("--score-thr", type=float, default=0.3, help="lowest score in the pictures [0.3]")
    parser.add_argument("--batch-size", type=int, default=1, help="images at a time [1]")
    parser.add_argument("--device", help="cpu, cuda or cuda:N [a GPU where there is one]")
    parser.add_argument(
        "--ann-file", type=Path, help="take the ids of images and categories from these COCO annotations"
    )
    parser.add_argument("--force", action="store_true", help="write over earlier predictions in DIR")
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave parameters that the checkpoint lacks at random values"
    )
    args = parser.parse_args()
    if args.batch_size < 1:
        parser.error(f"--batch-size must be at least 1, got {args.batch_size}")
    return args


def check(args: argparse.Namespace) -> None:
    """Check device and folder before the model is built.

    Raises:
        OSError: DIR has predictions, or cannot be written.
        ValueError: no such device.
    """
    results = args.out / "predictions.json"
    if results.exists() and not args.force:
        raise FileExistsError(f"{results} exists; --force writes over it, and its pictures")
    check_writable(results)
    try:
        torch.empty(0, device=args.device)
    # torch without CUDA asserts.
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device}: {str(error).splitlines()[0]}") from None


def main() -> None:
    """Predict."""
    args = parse_args()
    try:
        check(args)
        images = find_images(args.images)
        truth = None if args.ann_file is None else read_annotations(args.ann_file)
        cfg = load_config(args.config)
        predictor = Predictor(cfg, args.checkpoint, device=args.device, allow_missing=args.allow_missing)
        unreadable = write_predictions(
            predictor, images, args.out, batch_size=args.batch_size, score_thr=args.score_thr, truth=truth
        )
    except (CheckpointError, OSError, ValueError) as error:
        raise SystemExit(f"predict.py: {told(error)}") from None
    print(f"{args.out}: {len(images) - len(unreadable)} images predicted")
    if unreadable:
        examples = "; ".join(f"{path}: {why}" for path, why in list(unreadable.items())[:5])
        raise SystemExit(f"predict.py: {len(unreadable)} of {len(images)} images cannot be read (such as {examples})")


if __name__ == "__main__":
    main()
