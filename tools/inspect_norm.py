"""Tell which norms a config's model has, what training does to them, and which known traps it is in.

The model is built with random weights; nothing is downloaded and no data is read.
"""

import argparse

from mmengine.config import DictAction

import mmgn  # noqa: F401  # before mmdet: it serves mmcv's ops
from mmgn.engine.config import load_config
from mmgn.engine.model import build_model
from mmgn.engine.norm_table import norm_table


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="config file: a path, a path below configs/, or mmdet::PATH")
    parser.add_argument("--full", action="store_true", help="a line for each norm, not for each kind")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, help="override settings, as key=value")
    return parser.parse_args()


def main() -> None:
    """Inspect."""
    args = parse_args()
    try:
        cfg = load_config(args.config, options=args.cfg_options)
        table = norm_table(build_model(cfg), cfg)
    except (FileNotFoundError, ValueError) as error:
        raise SystemExit(f"inspect_norm.py: {error}") from None
    if not table.rows:
        raise SystemExit(f"inspect_norm.py: the model of {args.config} has no norm.")
    print(table.text(args.full))
    for warning in table.warnings:
        print(f"\nwarning: {warning}")


if __name__ == "__main__":
    main()
