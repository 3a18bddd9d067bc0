"""Write the tables of docs/reliability.md anew from the files of its results: python docs/reliability.py."""

import json
from pathlib import Path
from typing import Any

from tables import fill, table

PAGE = Path(__file__).with_name("reliability.md")
RESULTS = Path(__file__).parents[1] / "benchmarks" / "results" / "reliability"


def made(report: dict[str, Any]) -> str:
    """Return the table of a file of results, and where and when they were made."""
    columns = list(dict.fromkeys(key for row in report["rows"] for key in row))
    rows = [[_said(row.get(column, "")) for column in columns] for row in report["rows"]]
    versions = ", ".join(f"{name} {version}" for name, version in report["versions"].items())
    where = f"{report['date']}, {report['cpu']} ({report['cores']} cores), {versions}: `{report['command']}`"
    return f"{report['what']}. {where}\n\n{table(columns, rows)}"


def render(page: str) -> str:
    """Return the page with every table as the results have it now."""
    return fill(PAGE, page, {path.stem: made(json.loads(path.read_text())) for path in sorted(RESULTS.glob("*.json"))})


def _said(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
