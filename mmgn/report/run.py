"""A run as read and judged: what a report of one run and a comparison of several are made of."""

from dataclasses import dataclass
from pathlib import Path

from mmgn.evaluation import Analysis, ImageErrors, analyse
from mmgn.report.notes import evaluation_notes, training_notes
from mmgn.report.predictions import Predictions, find_predictions, result_files
from mmgn.report.workdir import WorkDir, read_work_dir


@dataclass
class Run:
    """One run, or results alone."""

    work: WorkDir
    predictions: Predictions | None
    #: By IoU type, for those that the results and annotations allow.
    analyses: dict[str, Analysis]

    @property
    def name(self) -> str:
        """The name of its config, or else of its folder or results."""
        either = self.work.record.get("train") or self.work.evaluation
        return Path(either["config"]).stem if either.get("config") else self.work.path.resolve().name

    @property
    def kind(self) -> str | None:
        """The IoU type that errors are told by: masks where there are masks."""
        return next((kind for kind in ("segm", "bbox") if kind in self.analyses), None)

    @property
    def ranked(self) -> list[ImageErrors]:
        """The images with objects or detections, by rising F1; equals by image id."""
        errors = self.analyses[self.kind].errors if self.kind else []
        # Ids are numbers or text; padded, both sort as they read.
        return sorted(errors, key=lambda own: (own.f1, str(own.image_id).zfill(20)))


def read_run(
    source: Path, ann_file: Path | None = None, img_dir: Path | None = None, results: Path | None = None
) -> Run:
    """Read a run and judge its predictions.

    Args:
        source: an MMEngine ``work_dir``; or COCO results, as one file or as the prefix of ``.bbox.json`` and
            ``.segm.json``, which need ``ann_file``.
        ann_file: COCO annotations, over the recorded ones.
        img_dir: folder of the images, over the recorded one.
        results: results or their prefix, over the recorded ones.

    Raises:
        FileNotFoundError: a file that was given does not exist.
        ValueError: a file is damaged or does not belong to the others, or there is nothing to report.
    """
    alone = not source.is_dir() and bool(result_files(source))
    if alone and results is not None:
        raise ValueError(f"{source} holds results already, got {results} beside it; give one of the two")
    work = WorkDir(source) if alone else read_work_dir(source)
    results = source if alone else results
    if not work.train and not work.record and results is None:
        raise ValueError(
            f"{work.path} is no work directory of a run: it has neither training lines in "
            "*/vis_data/scalars.json nor run.json; give the work_dir of an MMEngine run, or COCO results with "
            "--ann-file"
        )
    predictions = find_predictions(work, ann_file, img_dir, results)
    if not alone:
        work.notes += training_notes(work)
    run = Run(work, predictions, {})
    if predictions:
        run.analyses = _analyse(predictions, work.notes)
        work.notes += evaluation_notes(work, predictions, run.analyses)
    return run


def _analyse(predictions: Predictions, notes: list[str]) -> dict[str, Analysis]:
    cat_ids = [category["id"] for category in predictions.categories]
    analyses = {}
    for kind, results in predictions.results.items():
        try:
            analyses[kind] = analyse(predictions.truth, results, kind, cat_ids)
        except ValueError as error:
            notes.append(f"No {kind} figures: {str(error).rstrip('.')}.")
    return analyses
