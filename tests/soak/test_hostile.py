"""Every pickle that runs code, through every door, and through the tools that are quick."""

import time
import warnings

import pytest

pytest.importorskip("mmdet")

import doors
import gadgets

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

QUICK = [door for door in doors.TOOLS if door.startswith(("convert", "eval", "report", "predict", "init"))]


def test_no_door_runs_any(tmp_path, call_tool, figures, monkeypatch):
    from mmgn.datasets.digits import make_digits

    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    make_digits(tmp_path / "data/digits", num_train=2, num_val=1)
    rows = []
    marker = tmp_path / "marker"

    def keep(door, kinds, tried, refused):
        # What a gadget has begun beside this process may take its time.
        time.sleep(0.2)
        rows.append({"door": door, "as": kinds, "gadgets": len(gadgets.NAMES), "files": tried, "refused": refused})
        rows[-1]["ran"] = int(marker.exists())
        marker.unlink(missing_ok=True)

    for door, (read, formats, error) in doors.DOORS.items():
        tried = refused = 0
        for name in gadgets.NAMES:
            for protocol in (2, 3, 4, 5):
                for kind in formats:
                    path = tmp_path / ("x.pkl" if kind == "pickle" else "x.pth")
                    path.write_bytes(gadgets.FORMATS[kind](gadgets.raw(name, marker, protocol)))
                    tried += 1
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        try:
                            read(path)
                        except error:
                            refused += 1
        keep(door, ", ".join(formats), tried, refused)
    for door in QUICK:
        tried = refused = 0
        for name in gadgets.NAMES:
            tool, *args = doors.command(door, gadgets.raw(name, marker), tmp_path)
            status, said = call_tool(tmp_path, tool, *args)
            tried += 1
            refused += status == 1 and said.splitlines()[-1].startswith(f"{tool}: ")
        keep(door, "pickle" if "{pkl}" in doors.TOOLS[door] else "zip", tried, refused)
    figures("hostile_pickles", "Pickles that run code, by the door through which they came", rows)
    assert all(row["ran"] == 0 and row["refused"] == row["files"] for row in rows)
