"""The pages in a real browser."""

import io
import itertools
import re
from pathlib import Path

import pytest
from PIL import Image

import mmgn.report
from mmgn.report import write_comparison, write_report

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright, which drives Chromium, is not installed")

CSS = (Path(mmgn.report.__file__).parent / "templates" / "page.css").read_text()


@pytest.fixture
def show(browser):
    """Open a page; at the end of the test, whatever it complained of or asked the network for is an error."""
    opened, complaints = [], []

    def show(path, *, width=1280, height=900, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
        page.set_default_timeout(60_000)
        page.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith("data:") or complaints.append(request.url))
        page.goto(path.as_uri())
        assert complaints == [path.as_uri()]
        complaints.clear()
        opened.append(page)
        return page

    yield show
    for page in opened:
        page.close()
    assert complaints == []


@pytest.fixture
def index(work_dir):
    return write_report(work_dir)


def test_what_is_drawn(index, show, tmp_path):
    page = show(index)
    assert page.locator("#chart-pr polyline").count() == 2
    assert page.locator("#chart-f1 circle").count() == 2
    assert page.locator("#chart-calibration polyline").count() == 3
    picture = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    assert len(picture.getcolors(2**24)) > 500
    assert picture.getpixel((5, 5)) == (255, 255, 255)
    dark = Image.open(io.BytesIO(show(index, scheme="dark").screenshot())).convert("RGB")
    assert max(dark.getpixel((5, 5))) < 40


def test_curves_of_a_class(index, show):
    page = show(index)
    assert page.locator("#curve-text").inner_text().startswith("All classes, mean. Box: AP50 ")
    before = page.locator("#chart-pr polyline").first.get_attribute("points")
    page.locator("#curves").get_by_label("Class", exact=True).select_option(label="<script>disc</script>")
    assert page.locator("#curve-text").inner_text().startswith("<script>disc</script>. Box: AP50 ")
    assert page.locator("#chart-pr polyline").first.get_attribute("points") != before
    assert "<script>disc</script>" in page.locator("#chart-pr svg").get_attribute("aria-label")


def soon(locator):
    # Page.wait_for_function would evaluate text, which the page's policy refuses.
    sync_api.expect.set_options(timeout=60_000)
    return sync_api.expect(locator)


def fitting(page, label, error):
    """Count the pairs that have a mark of this class and error, and the marks, by what the page says of them."""
    selector = f"li[data-error='{error}']"
    selector += f"[data-label='{label}']" if label else ""
    return page.locator(f".pair:has({selector})").count(), page.locator(f".pair {selector}").count()


def test_filter_by_mouse(index, show):
    page = show(index)
    everything = page.locator(".pair").count()
    assert everything == 12
    form = page.get_by_role("form", name="Filter the images")
    form.get_by_label("Error", exact=True).select_option("missed")
    pairs, marks = fitting(page, "", "missed")
    assert 0 < pairs < everything
    assert page.locator(".pair:visible").count() == pairs
    assert page.locator("#filter-count").inner_text() == f"{pairs} of {everything} images, {marks} errors marked"
    assert page.locator(".shot[data-side=truth] rect").count() == marks
    assert page.locator(".shot[data-side=prediction] rect").count() == 0
    form.get_by_label("Error", exact=True).select_option("classification")
    form.get_by_label("Class", exact=True).select_option(label="bar")
    assert page.locator(".pair:visible").count() == fitting(page, "2", "classification")[0] <= 1
    form.get_by_role("button", name="Show all").click()
    soon(page.locator("#filter-count")).to_have_text("12 of 12 images")
    assert page.locator(".pair:visible").count() == everything
    assert page.locator(".shot rect").count() == 0


def test_filter_by_keyboard_alone(index, show):
    page = show(index)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    for _ in range(100):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.name") == "error":
            break
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid"
    page.keyboard.type("missed")
    pairs, marks = fitting(page, "", "missed")
    soon(page.locator(".shot rect")).to_have_count(marks)
    assert page.locator(".pair:visible").count() == pairs
    assert page.locator("#filter-count").get_attribute("aria-live") == "polite"
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    soon(page.locator("#filter-count")).to_have_text("12 of 12 images")


def test_tables_sort(index, show):
    page = show(index)
    table = page.locator("#classes table")
    column = [float(cell) for cell in table.locator("tbody tr td:nth-child(3)").all_inner_texts()]
    head = table.get_by_role("button", name="Box AP", exact=True)
    for order, direction in ((sorted(column, reverse=True), "descending"), (sorted(column), "ascending")):
        head.click()
        assert [float(cell) for cell in table.locator("tbody tr td:nth-child(3)").all_inner_texts()] == order
        assert table.locator("th[aria-sort]").get_attribute("aria-sort") == direction


def test_landmarks_names_and_headings(index, show):
    page = show(index)
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(landmark).count() == 1
    assert page.locator("html").get_attribute("lang") == "en"
    assert all(image.get_attribute("alt") for image in page.locator("img").all())
    assert page.locator("table:not(:has(caption))").count() == 0
    assert page.locator("th:not([scope])").count() == 0
    # A name for all that can be used, and for what scrolls.
    unnamed = """() => [...document.querySelectorAll('select, button, [role=img], [tabindex="0"]:not(pre)')]
        .filter(e => !(e.labels?.length || e.textContent.trim() || e.getAttribute('aria-label'))).length"""
    assert page.evaluate(unnamed) == 0
    levels = [int(name[1]) for name in page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(e => e.tagName)")]
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1


def test_a_phone_and_paper(index, show):
    page = show(index, width=360, height=740)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    page = show(index)
    assert page.locator("details[open]").count() == 0
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details:not([open])").count() == 0
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.locator("details[open]").count() == 0
    page.emulate_media(media="print", color_scheme="dark")
    assert not page.locator("nav").is_visible()
    assert not page.locator("#filter").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_nothing_else_may_run(index, browser):
    page = browser.new_page()
    page.goto(index.as_uri())
    page.evaluate("""() => {
        const script = document.createElement('script');
        script.textContent = 'window.ran = true';
        document.body.append(script);
    }""")
    assert page.evaluate("window.ran") is None
    assert page.evaluate("fetch('https://example.com').then(() => 'fetched', () => 'refused')") == "refused"
    page.close()


def test_comparison(work_dir, show, tmp_path):
    page = show(write_comparison([work_dir, work_dir], tmp_path / "out", replicates=20))
    assert page.locator("#differences svg.delta").count() == 2
    assert page.locator("#differences td", has_text="within noise").count() == 2
    assert page.locator("table:not(:has(caption))").count() == 0
    assert show(tmp_path / "out" / "index.html", width=360).evaluate("document.documentElement.scrollWidth") == 360


def test_differences_within_noise_sort_as_figures(work_dir, other, show, tmp_path):
    table = show(write_comparison([work_dir, other], tmp_path / "out", replicates=50)).locator("#classes-bbox table")
    head = table.get_by_role("button", name="other")
    cells = table.locator("tbody tr td:last-child").all_inner_texts
    assert "(+0.0)" in cells()

    def figures():
        return [float(cell.strip("()").replace("−", "-")) for cell in cells()]

    assert len(set(figures())) == 3
    for falling in (True, False):
        head.click()
        assert figures() == sorted(figures(), reverse=falling)


def test_no_two_regions_share_a_name(index, work_dir, other, show, tmp_path):
    comparison = write_comparison([work_dir, other], tmp_path / "out", replicates=20)
    for page in map(show, (index, comparison)):
        names = page.evaluate("""() => [...document.querySelectorAll('section, nav, form, [role=region]')].map(e =>
            e.getAttribute('aria-label') || document.getElementById(e.getAttribute('aria-labelledby')).textContent)""")
        assert len(names) > 5
        assert len(names) == len(set(names))


def test_without_scripts_the_page_still_tells_all(index, browser):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(index.as_uri())
    assert page.locator("#filter").is_hidden()
    assert page.locator(".pair:visible").count() == 12
    assert page.locator("#curves details table").count() == 1
    context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme):
    light, dark = re.findall(r"--ink: #[^}]+", CSS)[:2]
    names = dict(re.findall(r"--(\w+): (#\w+)", light)) | (
        dict(re.findall(r"--(\w+): (#\w+)", dark)) if scheme == "dark" else {}
    )
    colors = {name: [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for name, color in names.items()}

    def luminance(parts):
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    def contrast(one, other):
        dim, bright = sorted(map(luminance, (one, other)))
        return (bright + 0.05) / (dim + 0.05)

    shades = re.findall(r"\.heat \.\w\d \{ background: color-mix\(in srgb, var\(--(\w)\) (\d+)%, transparent\)", CSS)
    assert len(shades) == 8
    for ground in ("paper", "tint"):
        for ink in ("ink", "soft", "a", "b", "good"):
            # WCAG 2.2, 1.4.3: 4.5 for text; what is drawn in good and b is drawn, and named, too.
            assert contrast(colors[ground], colors[ink]) >= (3 if ink in ("a", "b", "good") else 4.5), (ground, ink)
        for name, percent in shades:
            share = int(percent) / 100
            mixed = [share * a + (1 - share) * b for a, b in zip(colors[name], colors[ground], strict=True)]
            assert contrast(colors["ink"], mixed) >= 4.5, (ground, name, percent)
