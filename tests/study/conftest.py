import csv
import io

import pytest

COLUMNS = "task data norm num_groups channels_per_group batch_size seed status reason top1_error box_AP mask_AP mIoU"


@pytest.fixture
def study(tmp_path):
    """Write a study.csv of cells ``(norm, batch size): errors by seed``; None is not measured."""

    def write(cells, task="classification", data="digits", metric="top1_error", status="missing", reason="not run yet"):
        text = io.StringIO("# model: resnet-mini\n# budget: 100 images\n")
        text.seek(0, io.SEEK_END)
        writer = csv.DictWriter(text, COLUMNS.split(), restval="")
        writer.writeheader()
        for (norm, batch_size), values in cells.items():
            name, _, groups = norm.partition(" ")
            kind = "channels_per_group" if groups.endswith("c") else "num_groups"
            for seed, value in enumerate(values):
                row = {"task": task, "data": data, "norm": name, "batch_size": batch_size, "seed": seed}
                row |= {kind: groups.rstrip("c")} if groups else {}
                row |= {"status": status, "reason": reason} if value is None else {"status": "done", metric: value}
                writer.writerow(row)
        path = tmp_path / "study.csv"
        path.write_text(text.getvalue())
        return path

    return write
