"""Write the evaluation report of a run: index.html, report.md and metrics.json."""

import argparse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work_dir", help="work_dir of an MMEngine/mmdet run")
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default: WORK_DIR/report)")
    parser.add_argument("--max-images", type=int, default=12, metavar="N", help="images in the gallery (default: 12)")
    parser.add_argument("--ann-file", metavar="JSON", help="COCO annotations, instead of those in run.json")
    parser.add_argument("--img-dir", metavar="DIR", help="folder of the images, instead of that in run.json")
    parser.add_argument(
        "--results-prefix",
        metavar="PREFIX",
        help="PREFIX.bbox.json and PREFIX.segm.json, instead of those in run.json",
    )
    return parser.parse_args()


def main() -> None:
    """Write the report and print its headline."""
    args = parse_args()
    try:
        from mmgn.report import read_headline, write_report

        index = write_report(
            args.work_dir,
            args.out,
            ann_file=args.ann_file,
            img_dir=args.img_dir,
            results_prefix=args.results_prefix,
            max_images=args.max_images,
        )
    except (ImportError, OSError, ValueError) as error:
        raise SystemExit(f"report.py: {error}") from None
    print(read_headline(index))
    print(f"\n{index}")


if __name__ == "__main__":
    main()
