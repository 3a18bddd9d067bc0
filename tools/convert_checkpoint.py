"""Convert a checkpoint with group norm between mmdet, Detectron, detectron2, torchvision and timm.

Names a ResNet's or ResNeXt's weights, alone or in Mask R-CNN with FPN, as the other code base does, and reports what
became of each key and what input the weights expect. Batch norm's weights become a warm start: gamma and beta without
their statistics. No code that SRC may hold is run.

    python tools/convert_checkpoint.py R-50-GN.pkl resnet50_gn.pth
    python tools/convert_checkpoint.py work_dirs/.../epoch_24.pth model.pkl --to detectron2 --model configs/...
"""

import argparse
from pathlib import Path
from typing import Any

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.config import load_config
from mmgn.engine.disk import told
from mmgn.engine.model import build_model
from mmgn.weights import LAYOUTS, check_destination, convert, read_checkpoint, write_checkpoint


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("src", type=Path, help="checkpoint: .pth, .safetensors, or .pkl of Detectron or detectron2")
    parser.add_argument(
        "dst", type=Path, help="file to write: .pth or .safetensors; .pkl for Detectron; .pkl or .pth for detectron2"
    )
    parser.add_argument(
        "--from", dest="source", choices=["auto", *LAYOUTS], default="auto", help="[auto: as the keys tell]"
    )
    parser.add_argument("--to", choices=list(LAYOUTS), default="mmdet", help="[mmdet]")
    parser.add_argument(
        "--model", metavar="CONFIG", help="config of the mmdet model on one side, to check depth, keys and shapes by"
    )
    parser.add_argument("--keys", action="store_true", help="list the matched keys too")
    parser.add_argument("--force", action="store_true", help="overwrite DST")
    return parser.parse_args()


def model_shapes(config: str) -> dict[str, Any]:
    """Build a config's model, without its weights, and return the shapes of its state by their keys."""
    return {key: value.shape for key, value in build_model(load_config(config)).state_dict().items()}


def main() -> None:
    """Convert."""
    args = parse_args()
    source = None if args.source == "auto" else args.source
    try:
        check_destination(args.dst, args.to, force=args.force)
        state = read_checkpoint(args.src)
        shapes = None if args.model is None else model_shapes(args.model)
        weights, report = convert(state, args.to, source=source, model=shapes)
        if args.keys:
            print("\n".join(f"{key} -> {name}" for key, name in report.matched.items()))
        print(report)
        origin = f"{args.src.name} ({report.source})"
        write_checkpoint(args.dst, weights, args.to, origin=origin, force=args.force)
    except (OSError, ValueError, TypeError, ImportError, RuntimeError) as error:
        raise SystemExit(f"convert_checkpoint.py: {told(error)}") from None
    print(f"wrote {args.dst}: {len(weights)} keys, {args.dst.stat().st_size / 2**20:.1f} MiB")


if __name__ == "__main__":
    main()
