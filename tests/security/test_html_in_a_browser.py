"""A corpus of script tags through every page of HTML that the package writes, opened in a real browser: nothing runs."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest

from bae_lens.comsem.cards import cards_html
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import FeatureResult, Tally
from bae_lens.comsem.study import FeatureSamples
from bae_lens.intervene.inspect import Inspection, Reading, TokenReadings
from bae_lens.pictures.charts import Axis, Chart, Line, Panel, Point
from bae_lens.pictures.interactive import chart_html

ATTACKS = (
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '"><svg onload="window.ran = 1">',
    "' onmouseover='window.ran = 1' x='",
    "</title><script>window.ran = 1</script>",
    "</style><script>window.ran = 1</script>",
    "<!--<script>window.ran = 1</script>-->",
    '<a href="javascript:window.ran = 1">x</a>',
    "<iframe srcdoc='<script>parent.ran = 1</script>'></iframe>",
    "&lt;script&gt;window.ran = 1&lt;/script&gt;",
    "<meta http-equiv=refresh content='0;url=http://127.0.0.1:9/'>",
    "%{x}<extra></extra>\u2028</script><script>window.ran = 1</script>",
)
ALL = " ".join(ATTACKS)


def cards() -> str:
    samples = [Sample((ALL, ALL, ALL), 1, 1, n, 0.0, True, False) for n in range(6)]
    feature = FeatureSamples(0, 6, tuple(samples[:3]), tuple(samples[3:]))
    result = FeatureResult(0, "scored", 6, ALL, ALL, Tally(2, 3), (True, False, ALL), Tally(0, 3))
    return cards_html([result], [feature], title=ALL)


def inspection() -> str:
    tokens = [TokenReadings(n, attack, [Reading(1, 0.5, 1.0)]) for n, attack in enumerate(ATTACKS)]
    return Inspection(ALL, "burstiness", tokens)._repr_html_()


def chart() -> str:
    points = [Point(1.0, 2.0, about={ALL: ALL}), Point(2.0, 3.0, about={})]
    return chart_html(Chart("name", ALL, Axis(ALL), Axis(ALL), [Panel(ALL, [Line(ALL, points)])], ALL))


PAGES = {"cards": cards, "inspection": inspection, "chart": chart}
SETTINGS = ("--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")


def browser_path() -> str | None:
    named = os.environ.get("BAE_LENS_BROWSER")
    found = (shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome", "chrome"))
    return named or next(filter(None, found), None)


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (tests/SKIPPED.md)")
    path = browser_path()
    if path is None:
        pytest.skip("there is no browser on this machine: no chromium or chrome (tests/SKIPPED.md)")
    with (
        sync_api.sync_playwright() as playwright,
        contextlib.closing(playwright.chromium.launch(executable_path=path, args=list(SETTINGS))) as opened,
    ):
        yield opened


def opened(browser, path: Path):
    """The page, with what it asked of the network and which dialogs it opened."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_timeout(100)
    return page, [url for url in asked if url != path.as_uri() and not url.startswith("data:")]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_of_the_corpus_runs(name, browser, tmp_path):
    path = tmp_path / f"{name}.html"
    path.write_text(PAGES[name](), encoding="utf-8")
    page, asked = opened(browser, path)
    for element in page.query_selector_all("td, mark, h2, .xtick, .legendtext"):
        element.dispatch_event("mouseover")
        element.dispatch_event("click")
    assert page.evaluate("window.ran === undefined"), f"{name} runs what the corpus says"
    assert page.url == path.as_uri()
    assert asked == []
    assert "window.ran = 1" in page.inner_text("body")  # the text is there to be read
    page.close()


def test_the_browser_would_run_it(browser, tmp_path):
    path = tmp_path / "unsafe.html"
    path.write_text(f"<p>{ATTACKS[0]}</p>", encoding="utf-8")
    page, _ = opened(browser, path)
    assert page.evaluate("window.ran === 1")
    page.close()
