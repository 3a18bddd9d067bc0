import math
import re
import statistics

import pytest

from mmgn.study import quoted
from mmgn.study.results import Setting, group_series, read_csv, settings_over_batches, summarise
from mmgn.study.table import markdown, write_summary
from mmgn.study.verdict import paired, spans, statements

# Student's t with two degrees of freedom, 97.5 %: from a printed table.
T2 = 4.303


def table(text, title):
    """The cells of the table whose first column has a title, by that column."""
    lines = iter(text.splitlines())
    head = next(line for line in lines if line.startswith(f"| {title} |") or line.startswith(f"| {title},"))
    names = [cell.strip() for cell in head.strip("|").split("|")]
    next(lines)
    rows = {}
    for line in lines:
        if not line.startswith("|"):
            break
        first, *cells = [cell.strip() for cell in line.strip("|").split("|")]
        rows[first] = dict(zip(names[1:], cells, strict=True))
    return rows


def verdicts(path, metric="top1_error"):
    _, rows = read_csv(path)
    return {each.text: each.verdict for each in statements(rows, metric)}


def test_mean_and_sample_standard_deviation_by_hand(study):
    head, rows = read_csv(study({("GN 8", 32): (1.0, 2.0, 6.0), ("GN 8", 2): (4.0, 4.5, None)}))
    assert head == ["model: resnet-mini", "budget: 100 images"]
    large, small = summarise(rows)
    # Deviations -2, -1, 3: squares 14, over 2.
    assert (large.setting, large.n, large.planned) == (Setting("GN", num_groups=8), 3, 3)
    assert (large.mean, large.spread) == (3.0, pytest.approx(math.sqrt(7)))
    assert (small.n, small.planned, small.mean) == (2, 3, 4.25)
    found = table(markdown(head, rows), "Norm")
    assert found == {"GN, 8 groups": {"batch 32": "3.00 ± 2.65", "batch 2": "4.25 ± 0.35 (2 of 3)"}}


def test_differences_are_paired_by_seed(study):
    path = study({("BN", 32): (3.0, 5.0, 9.0), ("GN 8", 32): (2.0, 5.0, None)})
    text = markdown(*read_csv(path))
    # Of seeds 0 and 1 alone: the means of all seeds differ by 2.17.
    found = table(text.partition("Difference from GN")[2], "Norm")
    assert found == {"BN": {"batch 32": "+0.50 ± 0.71 (2 of 3)"}}
    # A statement that rests on the seeds that are left says so.
    assert table(text, "Statement")["BN is better than GN at batch 32"]["Seeds"] == "2 of 3"


def test_interval_is_students_of_the_differences():
    difference = paired([{0: 5.0, 1: 7.0, 2: 6.0}], [{2: 3.0, 0: 4.0, 1: 5.0, 9: 0.0}])
    assert difference.values == (1.0, 2.0, 3.0)
    low, high = difference.interval
    half = T2 * 1.0 / math.sqrt(3)
    assert (low, high) == pytest.approx((2 - half, 2 + half), abs=1e-3)


GN_FLAT = {("GN 8", 32): (5.0, 5.2, 5.1), ("GN 8", 2): (5.1, 5.2, 5.0)}


@pytest.mark.parametrize(
    ("bn", "expected"),
    [
        ({("BN", 32): (4.0, 4.2, 4.1), ("BN", 2): (15.0, 15.5, 15.2)}, "shows"),
        ({("BN", 32): (4.0, 4.2, 4.1), ("BN", 2): (3.0, 7.2, 4.4)}, "does not show"),
        ({("BN", 32): (9.0, 9.2, 9.1), ("BN", 2): (5.0, 5.1, 5.3)}, "the reverse shows"),
    ],
)
def test_verdicts_follow_the_figures(study, bn, expected):
    found = verdicts(study(bn | GN_FLAT))
    assert found["BN is worse at batch 2 than at 32"] == expected
    assert found["BN loses more than GN from batch 32 to 2"] == expected
    assert found["GN is worse at batch 2 than at 32"] == "does not show"


def test_what_shows_against_the_paper_is_told_so(study):
    rows = read_csv(study({("GN 8", 32): (5.0, 5.2, 5.1), ("GN 8", 2): (7.1, 7.3, 7.0)}))
    found = {line: cells["Verdict"] for line, cells in table(markdown(*rows), "Statement").items()}
    assert found == {"GN is worse at batch 2 than at 32, which the paper denies": "shows"}


def test_less_ap_is_worse(study):
    cells = {("BN", 8): (60.0, 60.2, 60.1), ("BN", 2): (40.0, 41.0, 40.2), ("GN 4", 8): (59.0, 59.1, 58.8)}
    path = study(cells | {("GN 4", 2): (59.0, 58.9, 59.1)}, task="detection", metric="box_AP")
    assert verdicts(path, "box_AP") == {
        "BN is worse at batch 2 than at 8": "shows",
        "GN is worse at batch 2 than at 8": "does not show",
        "BN loses more than GN from batch 8 to 2": "shows",
        "GN is better than BN at batch 2": "shows",
        "BN is better than GN at batch 8": "shows",
    }
    text = markdown(*read_csv(path))
    assert "box AP in %, higher is better" in text
    # ImageNet's errors are no yardstick for AP.
    assert "ImageNet" not in text


def test_too_few_seeds_give_no_verdict(study):
    one = verdicts(study({("BN", 32): (4.0,), ("BN", 2): (90.0,)}))
    assert set(one.values()) == {"one seed: no verdict"}
    # As coarse as one of 200 images: that two seeds agree says nothing of how far others would lie.
    assert set(verdicts(study({("BN", 32): (4.0, 4.5), ("BN", 2): (5.0, 5.5)})).values()) == {"no spread: no verdict"}
    assert set(verdicts(study({("BN", 32): (4.0, 4.5), ("BN", 2): (None, None)})).values()) == {
        "not measured: no verdict"
    }


def test_statements_are_of_norms_and_batch_sizes_in_the_grid(study):
    every = verdicts(study({(n, b): (1.0, 2.0) for n in ("BN", "GN 8", "LN", "IN", "BN*") for b in (32, 16, 2, 1)}))
    assert {"GN is better than BN at batch 2", "GN is better than BN at batch 1", "LN is worse than GN at batch 32"} < {
        *every
    }
    assert len(every) == len(set(every)) == 4 * 2 + 3
    assert list(verdicts(study({("BN", 4): (1.0, 2.0), ("GN 8", 4): (1.0, 2.0)}))) == [
        "BN is better than GN at batch 4"
    ]
    assert not verdicts(study({("LN", 4): (1.0, 2.0)}))


def test_spans_end_at_the_papers_batch_size_too(study):
    def ends(*sizes):
        _, rows = read_csv(study({("BN", size): (1.0,) for size in sizes}))
        return [tuple(span.values()) for span in spans(rows)]

    assert ends(32, 2, 1) == [(32, 2), (32, 1)]
    assert ends(32, 16, 4) == [(32, 4)]
    assert ends(2, 1) == [(2, 1)]
    assert ends(8) == [(8, 8)]


def test_group_table_and_its_extremes(study):
    cells = {("GN 8", b): (5.0, 6.0) for b in (32, 2)} | {(n, b): (7.0, 8.0) for n in ("LN", "IN") for b in (32, 2)}
    cells |= {("GN 16", 32): (5.5, 5.5), ("GN 2", 32): (6.0, 7.0), ("GN 4c", 32): (6.5, 6.5)}
    _, rows = read_csv(study(cells))
    # Groups that are tried at one batch size are no lines over batch sizes.
    assert [str(s) for s in settings_over_batches(rows)] == ["GN, 8 groups", "LN", "IN"]
    groups, channels = group_series(rows)
    assert (groups.kind, groups.batch_size, list(groups.settings)) == ("num_groups", 32, [16, 8, 2, 1])
    assert list(channels.settings.values()) == [Setting("GN", channels_per_group=4), Setting("IN")]
    text = markdown([], rows)
    assert table(text, "Groups")["top-1 error"] == {
        "16": "5.50 ± 0.00",
        "8": "5.50 ± 0.71",
        "2": "6.50 ± 0.71",
        "1 (LN)": "7.50 ± 0.71",
    }
    assert table(text, "Channels a group")["top-1 error"] == {"4": "6.50 ± 0.00", "1 (IN)": "7.50 ± 0.71"}


def test_what_is_not_measured_is_counted_with_its_reason(study):
    path = study(
        {("BN", 32): (1.0, 2.0), ("GN 8", 32): (1.0, math.nan), ("SyncBN", 32): (None, None)}, status="skipped"
    )
    text = write_summary(path).read_text()
    assert path.with_name("summary.md").is_file()
    assert "## Not measured: 3 of 6 cells" in text
    assert "| digits | GN | 1 | done, without a finite figure | – |" in text
    assert "| digits | SyncBN | 2 | skipped | not run yet |" in text
    assert "| SyncBN | – |" in text
    assert "| GN, 8 groups | 1.00 (1 of 2) |" in text


def test_a_grid_of_which_nothing_has_run(study):
    text = markdown(
        *read_csv(study({("BN", 32): (None,), ("BN*", 2): (None,)}, status="failed", reason="CUDA\n# error | x"))
    )
    assert "## Not measured: 2 of 2 cells" in text
    assert "| digits | BN\\* | 1 | failed | CUDA \\# error \\| x |" in text
    assert "verdict" not in text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("batch_size", "batch"), "row 1: KeyError: 'batch_size'"),
        (lambda text: text.replace(",1.5,", ",1,5,,,,,,,,,,,", 1).replace("done", "x"), None),
        (lambda text: text.replace("1.5", "bad"), "row 1: ValueError: could not convert string to float: 'bad'"),
        (lambda text: text + text.splitlines()[-1] + "\n", "BN at batch 2 with seed 0 on digits is there twice"),
    ],
)
def test_what_is_no_study_is_told(study, change, message):
    path = study({("BN", 32): (1.5,), ("BN", 2): (2.5,)})
    path.write_text(change(path.read_text()))
    if message is None:
        # A figure of a cell that is not done is none.
        assert not read_csv(path)[1][0].figures
        return
    with pytest.raises(ValueError, match=re.escape(message)):
        read_csv(path)


def test_quoted_figures_are_the_papers():
    """The sums were formed by hand from the paper's tables 1, 2 and 3."""
    assert sum(quoted.norms().values()) == pytest.approx(101.4)
    assert {n: round(sum(e.values()), 1) for n, e in quoted.batch_sizes().items()} == {"BN": 134.1, "GN": 120.6}
    assert {k: round(sum(e.values()), 1) for k, e in quoted.groups().items()} == {
        "num_groups": 172.3,
        "channels_per_group": 176.2,
    }
    # The tables share cells.
    assert quoted.batch_sizes()["GN"][32] == quoted.groups()["num_groups"][32] == quoted.norms()["GN"]
    assert quoted.groups()["num_groups"][1] == quoted.norms()["LN"]
    assert quoted.groups()["channels_per_group"][1] == quoted.norms()["IN"]
    assert quoted.batch_sizes()["BN"][32] == quoted.norms()["BN"]
    for name in ("norms", "batch_sizes", "groups"):
        assert re.search(r"1803\.08494v3\), table [123], .*ImageNet", quoted.source(name))


def test_quoted_differences_stand_beside_the_measured_ones(study):
    _, rows = read_csv(study({(n, b): (1.0, 2.0) for n in ("BN", "GN 8", "IN") for b in (32, 2, 1)}))
    found = {each.text: each.quoted for each in statements(rows, "top1_error")}
    assert found["BN loses more than GN from batch 32 to 2"] == pytest.approx(11.1)
    assert found["GN is worse at batch 2 than at 32"] == pytest.approx(0)
    assert found["IN is worse than GN at batch 32"] == pytest.approx(4.3)
    # The paper has no batch of 1.
    assert found["GN is better than BN at batch 1"] is None
    text = markdown([], rows)
    assert "quoted" in text
    last = table(text.partition("table 2")[2], "Images per GPU")
    assert {norm: statistics.fmean(map(float, cells.values())) for norm, cells in last.items()} == pytest.approx(
        {"BN": 26.82, "GN": 24.12}
    )
