"""Tables of the docs that are written from results: each stands between <!-- NAME --> and <!-- end --> of its page."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def table(head: Iterable[Any], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in Markdown."""
    head = list(head)
    lines = [head, ["---"] * len(head), *rows]
    return "".join("| " + " | ".join(map(str, line)) + " |\n" for line in lines)


def fill(path: Path, page: str, tables: Mapping[str, str]) -> str:
    """Return a page with each of the tables in its place.

    Raises:
        ValueError: the page has no such place, or two.
    """
    for name, text in tables.items():
        between = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end -->)", re.DOTALL)
        if len(between.findall(page)) != 1:
            raise ValueError(f"{path} must have one place '<!-- {name} --> ... <!-- end -->'")
        page = between.sub(lambda place, text=text: f"{place[1]}\n{text}\n{place[2]}", page)
    return page
