"""Fetch COCO 2017 into the layout that the configs expect: resumable, checked against its checksums, unpacked.

The default parts take 19 GiB on the way and as much again unpacked; train2017.zip is removed once it is.
"""

import argparse

from mmgn.datasets.coco_download import ARCHIVES, DEFAULT_PARTS, URL_BASE, DownloadError, download_coco


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="data/coco", help="folder to fill [default: data/coco]")
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(ARCHIVES),
        default=DEFAULT_PARTS,
        metavar="PART",
        help=f"of {', '.join(ARCHIVES)} [default: {' '.join(DEFAULT_PARTS)}]",
    )
    parser.add_argument("--url-base", default=URL_BASE, help=f"a mirror with the same paths [default: {URL_BASE}]")
    parser.add_argument("--keep-archives", action="store_true", help="leave the zip files in the folder")
    return parser.parse_args()


def main() -> None:
    """Download."""
    args = parse_args()
    try:
        download_coco(args.root, args.parts, url_base=args.url_base, keep_archives=args.keep_archives)
    except (DownloadError, ValueError) as error:
        raise SystemExit(f"download_coco.py: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("download_coco.py: interrupted; the same command goes on from here") from None
    print(f"{args.root} is what the configs expect; elsewhere than data/coco: --data-root {args.root}")


if __name__ == "__main__":
    main()
