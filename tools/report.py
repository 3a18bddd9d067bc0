"""Write the evaluation report of a run, or compare several: index.html, report.md and metrics.json."""

import argparse


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="A RUN is the work_dir of any MMEngine/mmdet run; or COCO results alone, as one json file or as the "
        "PREFIX of PREFIX.bbox.json and PREFIX.segm.json, which need --ann-file. Several RUNs are compared with the "
        "first.",
    )
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work_dir, or COCO results; see below")
    parser.add_argument("--out", metavar="DIR", help="folder to write to (default for one work_dir: RUN/report)")
    parser.add_argument("--max-images", type=int, metavar="N", help="images in the gallery (default: 24)")
    parser.add_argument("--ann-file", metavar="JSON", help="COCO annotations, instead of the recorded ones")
    parser.add_argument("--img-dir", metavar="DIR", help="folder of the images, instead of the recorded one")
    parser.add_argument(
        "--results-prefix",
        metavar="PREFIX",
        help="PREFIX.bbox.json and PREFIX.segm.json of the one RUN, instead of the recorded ones",
    )
    args = parser.parse_args()
    if len(args.runs) > 1 and args.out is None:
        parser.error("a comparison of several RUNs needs --out DIR")
    if len(args.runs) > 1 and args.results_prefix is not None:
        parser.error("--results-prefix is of one RUN; give the prefixes themselves as RUNs, with --ann-file")
    if len(args.runs) > 1 and (args.img_dir is not None or args.max_images is not None):
        parser.error("--img-dir and --max-images are of one RUN: a comparison has no gallery")
    return args


def main() -> None:
    """Write the report and print its headline."""
    args = parse_args()
    try:
        from mmgn.report import read_headline, write_comparison, write_report

        if len(args.runs) > 1:
            index = write_comparison(args.runs, args.out, ann_file=args.ann_file)
        else:
            index = write_report(
                args.runs[0],
                args.out,
                ann_file=args.ann_file,
                img_dir=args.img_dir,
                results_prefix=args.results_prefix,
                max_images=24 if args.max_images is None else args.max_images,
            )
    except (ImportError, ValueError) as error:
        raise SystemExit(f"report.py: {error}") from None
    except OSError as error:
        from mmgn.engine.disk import told

        raise SystemExit(f"report.py: {told(error)}") from None
    print(read_headline(index))
    print(f"\n{index}")


if __name__ == "__main__":
    main()
