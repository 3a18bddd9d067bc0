"""Print what runs where: versions, GPUs, patches and known clashes with their way out."""

import argparse
import json

from mmgn.compat import environment


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true", help="print the same as JSON")
    return parser.parse_args()


def main() -> None:
    """Print the report."""
    args = parse_args()
    env = environment.collect()
    print(json.dumps(env, indent=2) if args.json else environment.format_text(env))


if __name__ == "__main__":
    main()
