"""Text that would run a script, in every field that reaches a page, opened in a real browser."""

import contextlib
import html
import json
import re

import pytest
from injections import INJECTIONS

from mmgn.report import read_headline, write_comparison, write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives Chromium, is not installed")

ALL = " ".join(INJECTIONS.values())
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
#: What no page of ours has, but for its own two scripts.
STRANGE = """() => [...document.querySelectorAll('*')].filter(element =>
    ['IFRAME', 'OBJECT', 'EMBED', 'BASE', 'VIDEO', 'MATH', 'BODY'].includes(element.tagName)
        && element !== document.body
    || [...element.attributes].some(own => own.name.startsWith('on') || /^\\s*javascript:/i.test(own.value))
    || element.tagName === 'META' && element.httpEquiv === 'refresh'
    || element.tagName === 'SCRIPT' && element.parentElement !== document.body
    || element.tagName === 'STYLE' && element.parentElement !== document.head
        && !element.closest('svg')).map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture
def happens(browser):
    """Open a page, touch what may be waiting for it; returns what it has done that it must not."""
    page, done, own = browser.new_page(), [], ["data:"]
    page.on("dialog", lambda dialog: (done.append("a dialog"), dialog.dismiss()))
    page.on("request", lambda request: request.url.startswith(tuple(own)) or done.append(request.url))
    page.on("pageerror", lambda error: done.append(f"an error: {error}"))

    def happens(path, wait=200):
        # Nothing of the page before is taken for this one's.
        with contextlib.suppress(sync_api.Error):
            page.goto("about:blank")
        done.clear()
        own[1:] = [path.as_uri()]
        try:
            page.goto(path.as_uri())
            page.evaluate("document.querySelectorAll('details').forEach(element => element.open = true)")
            page.evaluate("document.querySelectorAll('*').forEach(element => element.focus?.())")
            page.wait_for_timeout(wait)
            if page.evaluate("window.ran"):
                done.append("a script")
            done.extend(page.evaluate(STRANGE))
        except sync_api.Error as error:
            # It has gone elsewhere.
            done.append(str(error))
        return list(done)

    yield happens
    page.close()


#: Where text is put into a page without care.
CONTEXTS = ("<p>{}</p>", '<p title="{}">', "<p title='{}'>", "<input value={}>", "<title>{}</title>", "<pre>{}</pre>")
CONTEXTS += ('<script>const x = "{}"</script>', "<textarea>{}</textarea>", "<select><option>{}</option></select>")
MADE_FOR = {
    **{f"end of a {tag}": [f"<{tag}>"] for tag in ("script", "title", "textarea", "pre", "option")},
    "attribute in double quotes": ['title="'],
    "attribute in single quotes": ["title='"],
    "attribute without quotes": ["value={}"],
    "text of a script": ["const"],
    "image, quoted": ['title="'],
}
#: What does no harm in a page but in Markdown, a terminal, a spreadsheet or a template, or by its length.
NOT_IN_PAGES = (
    "template",
    "comment",
    "Markdown",
    "entities",
    "escapes",
    "bidirectional",
    "nothing",
    "surrogate",
    "formula",
)
HARMFUL = [name for name in INJECTIONS if not name.startswith((*NOT_IN_PAGES, "long", "line of a script"))]


def test_without_care_they_run(happens, tmp_path):
    """Or the tests below show nothing."""
    tame = []
    for name in HARMFUL:
        page = tmp_path / "page.html"
        # The one that it is made for first.
        for context in sorted(CONTEXTS, key=lambda text: not any(sign in text for sign in MADE_FOR.get(name, ["<p>"]))):
            page.write_text(f"<!DOCTYPE html><body>{context.format(INJECTIONS[name])}")
            if happens(page, 20):
                break
        else:
            tame.append(name)
    assert tame == []
    assert len(HARMFUL) >= 30


@pytest.fixture
def hostile(work_dir, lines):
    """A work directory whose every field holds them."""
    path = work_dir.with_name(re.sub("[/\0\ud800]", "", ALL).encode()[:120].decode(errors="ignore"))
    work_dir.rename(path)
    record = json.loads((path / "run.json").read_text())
    truth = json.loads((path.parent / "annotations.json").read_text())
    for section in record.values():
        section |= dict.fromkeys(("model", "device", "peak_memory_kind", "command", "checkpoint", "ended"), ALL)
        section["versions"] = INJECTIONS | {text: name for name, text in INJECTIONS.items()}
        section["config"] = f"/configs/{ALL}.py"
        section["norms"] = {
            "rows": [dict.fromkeys(("where", "kind", "mode", "weight", "statistics", "decay"), ALL)],
            "warnings": [ALL],
        }
    record["evaluation"]["metrics"] = {f"{ALL}/bbox_mAP": 0.5}
    # One class a text, of which some have objects; the names of the images are what the disk allows.
    known = {entry["id"] for entry in truth["categories"]}
    texts = list(INJECTIONS.values())
    for entry in truth["categories"]:
        entry["name"] = texts.pop()
    truth["categories"] += [{"id": 1000 + i, "name": text} for i, text in enumerate(texts)]
    assert len({entry["id"] for entry in truth["categories"]}) == len(INJECTIONS) > len(known)
    record["evaluation"]["classes"] = [entry["name"] for entry in truth["categories"]]
    names = list(INJECTIONS.values())
    for image in truth["images"]:
        old, image["file_name"] = image["file_name"], f"{names.pop(3 * image['id'] % len(names))}.png"
        if not re.search("[/\0\ud800]", image["file_name"]) and len(image["file_name"]) < 200:
            (path.parent / "images" / old).rename(path.parent / "images" / image["file_name"])
    (path.parent / "annotations.json").write_text(json.dumps(truth))
    (path / "run.json").write_text(json.dumps(record))
    (path / "last_checkpoint").write_text(re.sub("\ud800", "", ALL))
    more = {f"loss_{name}_{text}": 1.0 for name, text in INJECTIONS.items() if name in ("image", "svg", "nothing")}
    val = {f"{INJECTIONS['script']}/bbox_mAP": 0.2, "coco/bbox_mAP": 0.3, "step": 3}
    scalars = lines.write(path, "20250103_000000", [lines.train(50, 0.1, epoch=3, **more), val])
    scalars.with_name("config.py").write_text(f"model = {re.sub(chr(0xD800), '', ALL)!r}\n{ALL[:0]}# </pre>\n" * 2)
    return path


def without_policy(index):
    """The page as it would be, were its policy not there: it is escaped all the same."""
    text, found = POLICY.subn("", index.read_text())
    assert found == 1
    bare = index.with_name("bare.html")
    bare.write_text(text)
    return bare


def test_report_runs_nothing(hostile, happens, tmp_path):
    index = write_report(hostile, tmp_path / "out")
    page = index.read_text()
    assert sum(html.escape(text) in page for text in INJECTIONS.values()) > len(INJECTIONS) // 2
    assert happens(index) == []
    assert happens(without_policy(index)) == []


def test_comparison_runs_nothing(hostile, happens, tmp_path):
    index = write_comparison([hostile, hostile], tmp_path / "out", replicates=2)
    assert happens(index) == []
    assert happens(without_policy(index)) == []


def rendered(path):
    """Markdown as a page, with whatever HTML is in it let through."""
    markdown = pytest.importorskip("markdown")
    page = path.with_suffix(".md.html")
    body = markdown.markdown(path.read_text(), extensions=["tables", "fenced_code"])
    page.write_text(f"<!DOCTYPE html><meta charset=utf-8><body>{body}")
    return page


def test_markdown_runs_nothing(hostile, happens, tmp_path):
    index = write_report(hostile, tmp_path / "out")
    own = {path.as_uri() for path in index.parent.iterdir()}
    assert [done for done in happens(rendered(index.with_name("report.md"))) if done not in own] == []
    index = write_comparison([hostile, hostile], tmp_path / "two", replicates=2)
    assert happens(rendered(index.with_name("report.md"))) == []


def test_terminal_is_told_no_escapes(hostile, tmp_path):
    for text in (
        read_headline(write_report(hostile, tmp_path / "out")),
        read_headline(write_comparison([hostile, hostile], tmp_path / "two", replicates=2)),
    ):
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", text), repr(text)
