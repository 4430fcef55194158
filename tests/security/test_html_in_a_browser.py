"""A corpus of script tags through every page of HTML that the package writes, opened in a real browser: nothing runs."""

import contextlib
import itertools
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import bae_lens
from bae_lens.comsem.cards import cards_html
from bae_lens.comsem.samples import Sample
from bae_lens.comsem.scores import FeatureResult, Tally
from bae_lens.comsem.study import FeatureSamples
from bae_lens.demo import demo_model_dir
from bae_lens.intervene.inspect import Inspection, Reading, TokenReadings
from bae_lens.pictures.charts import Axis, Chart, Line, Panel, Point
from bae_lens.pictures.interactive import chart_html
from bae_lens.report.figures.entries import Entry
from bae_lens.report.figures.gallery import Shown as Figure
from bae_lens.report.figures.gallery import page as gallery_page
from bae_lens.report.figures.gallery import write_drawn
from bae_lens.report.figures.tables import Table
from bae_lens.report.job import About, write_report
from bae_lens.report.results import Named
from bae_lens.report.source import from_text

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


def a_chart(name: str = "name") -> Chart:
    points = [Point(1.0, 2.0, about={ALL: ALL}), Point(2.0, 3.0, about={})]
    return Chart(name, ALL, Axis(ALL), Axis(ALL), [Panel(ALL, [Line(ALL, points)])], ALL)


def gallery(directory: Path, names: tuple[str, ...] = ATTACKS[:1]) -> Path:
    """The page of `bae-lens figures`, of hostile results; names of figures are those of directories."""
    table = Table(ATTACKS[0].replace("/", "-"), ALL, [ALL, "FVU"], [[ALL, 0.5]], ALL)
    charts = [a_chart(name.replace("/", "-")) for name in names]
    entry = Entry(ALL, ALL, (), ALL, lambda results: [])
    for drawn in (*charts, table):
        write_drawn(drawn, directory)
    path = directory / "index.html"
    path.write_text(gallery_page([Figure(entry, [*charts, table], ""), Figure(entry, [], ALL)]), encoding="utf-8")
    return path


def report(directory: Path) -> Path:
    """The page of `bae-lens report`: hostile text in front of the model, and in what other commands wrote."""
    hook = "blocks.1.hook_resid_pre"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=24))
        bae.W_enc.data.normal_(std=0.1)
        bae.W_dec.data.normal_(std=0.3)
    bae.cfg.metadata.hook_name = hook
    texts = [f"{attack} {attack}" for attack in ATTACKS]
    source = from_text(bae_lens.load_model(demo_model_dir()), texts, bae, name=ALL, model_name=ALL, tokens=3000)
    bae.b_enc.data = -(source.vectors @ bae.W_enc).quantile(0.8, dim=0).detach()
    bae.estimate_prior(source.vectors)
    named = {feature: Named(ALL, 0.5, 0.1, 0.9, ALL, ALL, 0.0, None, None) for feature in range(0, 24, 2)}
    line = {"method": ALL, "width": ALL, "family": "bae", "setting": ALL, "seeds": 1, "figures": {"fvu": [0.1, 0.1, 0.1]}}
    about = About(
        path=ALL,
        recipe={"sae": {ALL: ALL}},
        comsem=named,
        compare={"at": [0.1], "figures": ["fvu"], "lines": [line]},
        entropy=[{"bae": "of the layer", "hook": ALL, "position": p, "entropy": 9.0, "fvu": 0.2} for p in (1, 2)],
    )
    return write_report(bae, source, about, directory / "report.html", say=lambda line: None, progress=False).path


def written(make: Callable[[], str]) -> Callable[[Path], Path]:
    """A page that is a string, in a file."""

    def write(directory: Path) -> Path:
        path = directory / "page.html"
        path.write_text(make(), encoding="utf-8")
        return path

    return write


PAGES = {
    "cards": written(cards),
    "inspection": written(inspection),
    "chart": written(lambda: chart_html(a_chart())),
    "gallery": gallery,
    "report": report,
}
PARTS = {"report": ("features", "feature/0", "feature/1")}
"""Views of one page, by what stands behind the # of their address."""
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
    """The page, with what it asked of the network (not of files beside it) and which dialogs it opened."""
    page = browser.new_page()
    asked: list[str] = []
    page.on("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri(), wait_until="load")
    page.wait_for_timeout(100)
    beside = path.parent.as_uri() + "/"
    return page, [url for url in asked if not url.startswith((beside, "data:", "blob:"))]


@pytest.mark.parametrize("name", PAGES)
def test_nothing_of_the_corpus_runs(name, browser, tmp_path):
    path = PAGES[name](tmp_path)
    page, asked = opened(browser, path)
    for part in ("", *PARTS.get(name, ())):
        if part:
            page.evaluate(f"location.hash = {part!r}")
            page.wait_for_timeout(100)
        for element in page.query_selector_all("td, mark, h2, .xtick, .legendtext"):
            element.dispatch_event("mouseover")
            element.dispatch_event("click")
        assert page.evaluate("window.ran === undefined"), f"{name} runs what the corpus says"
        assert page.url.split("#")[0] == path.as_uri()
        assert asked == []
        assert "window.ran = 1" in page.inner_text("body")  # the text is there to be read
    page.close()


def test_a_chart_says_texts_as_they_are(browser, tmp_path):
    path = tmp_path / "chart.html"
    panels = [Panel(f'the token "{token}" & its', [Line("it's <b>", [Point(1.0, 2.0)])]) for token in ("'s", "the")]
    path.write_text(chart_html(Chart("name", 'a "title"', Axis("x"), Axis("y"), panels, "a & b")), encoding="utf-8")
    page, _ = opened(browser, path)
    page.wait_for_selector(".legendtext")
    shown = page.eval_on_selector_all("svg text", "every => every.map(one => one.textContent)")
    assert {'the token "\'s" & its', 'the token "the" & its', "it's <b>", 'a "title"', "a & b"} <= set(shown)
    page.close()


def test_panels_of_a_chart_do_not_lie_on_each_other_on_a_phone(browser, tmp_path):
    path = tmp_path / "chart.html"
    panels = [Panel(f"a panel with a title, {n}", [Line("line", [Point(1.0, 2.0)])]) for n in range(3)]
    path.write_text(chart_html(Chart("name", "A title", Axis("x"), Axis("y"), panels, "")), encoding="utf-8")
    page = browser.new_page(viewport={"width": 390, "height": 800})
    page.goto(path.as_uri())
    page.wait_for_selector(".annotation-text")
    boxes = [one.bounding_box() for one in page.query_selector_all(".annotation-text")]
    titles = sorted((box["x"], box["x"] + box["width"]) for box in boxes if box["height"] < box["width"])[:3]
    assert all(left[1] < right[0] for left, right in itertools.pairwise(titles))
    assert page.title() == "A title"
    assert page.get_attribute("html", "lang") == "en"
    page.close()


def test_every_module_that_writes_html_is_here():
    """One that is new belongs into PAGES, and its module here."""
    known = {
        "comsem/cards.py": "cards",
        "demo/job.py": "inspection",  # of `Inspection._repr_html_`, in a page
        "intervene/inspect.py": "inspection",
        "pictures/interactive.py": "chart",  # what traces/report.py and the gallery write
        "report/figures/gallery.py": "gallery",
        "report/assemble.py": "report",
    }
    house = Path(bae_lens.__file__).parent
    marks = re.compile(r"<!doctype html|</(?:table|td|span|mark)>|full_html|_part\(\"page\.html\"\)")
    found = {str(path.relative_to(house)) for path in house.rglob("*.py") if marks.search(path.read_text(encoding="utf-8"))}
    assert found == set(known)
    assert set(known.values()) == set(PAGES)


def test_figures_of_directories_with_odd_names_are_shown(browser, tmp_path):
    page, _ = opened(browser, gallery(tmp_path, ("fig3-50%", "fig3-l5#2?")))
    pictures = page.query_selector_all("img")
    assert len(pictures) == 2
    for picture in pictures:
        picture.scroll_into_view_if_needed()
    page.wait_for_function("[...document.images].every(image => image.complete && image.naturalWidth > 0)", timeout=5000)
    links = page.eval_on_selector_all("a", "every => every.map(one => one.href)")
    assert all(link.startswith(tmp_path.as_uri()) for link in links)
    page.close()


def test_the_browser_would_run_it(browser, tmp_path):
    path = tmp_path / "unsafe.html"
    path.write_text(f"<p>{ATTACKS[0]}</p>", encoding="utf-8")
    page, _ = opened(browser, path)
    assert page.evaluate("window.ran === 1")
    page.close()
