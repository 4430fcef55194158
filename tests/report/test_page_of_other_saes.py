"""The page in a real browser, of what is no one-bit BAE: a SAELens SAE, and BAEs of several bits a feature."""

import pytest
from axe_playwright_python.sync_playwright import Axe

from bae_lens.report.collect import Shown
from bae_lens.report.job import About, write_report

KINDS = ("sae", "powers", pytest.param("nested", marks=pytest.mark.slow))
FEATURES = 60
DEAD, DENSE, USUAL = 7, 9, 4
"""Features: never on, on for most tokens, and neither."""


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def page_file(kind, tmp_path_factory, make_source, make_sae):
    """A report of an SAE of some kind with a feature that is dead and one that is dense."""
    import torch

    import bae_lens

    each = 3 if kind == "powers" else 1  # pre-activations of a feature
    if kind == "sae":
        sae = make_sae(FEATURES)
    else:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=FEATURES, bits_per_feature=3, code=kind))
            sae.W_enc.data.normal_(std=0.1)
            sae.W_dec.data.normal_(std=0.3)
    source = make_source(sae)
    with torch.no_grad():
        sae.b_enc.copy_(-((source.vectors - sae.b_dec * (kind == "sae")) @ sae.W_enc).quantile(0.85, dim=0))
        sae.b_enc.view(-1, each)[DEAD] = -1e3
        sae.W_enc[:, DENSE * each] *= -1
        sae.b_enc[DENSE * each] *= -1
    if kind != "sae":
        sae.estimate_prior(source.vectors)
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(sae, source, About("runs/it"), out, Shown(top=6, random=3), lambda line: None, progress=False)
    return out


def text(page, selector):
    return page.locator(selector).first.inner_text()


def features(page):
    return page.locator("tbody tr[aria-rowindex] th a").all_inner_texts()


def test_it_opens_and_is_searched_and_sorted(visit):
    page = visit()
    assert "bits a token" in text(page, ".tile.pair")
    page.click('nav a[data-view="features"]')
    page.fill("#search", "#12")
    assert features(page)[0] == "12"
    page.fill("#search", "")
    word = next(token.strip() for token in page.locator("td.col-tokens bdi").all_inner_texts() if token.strip().isalpha())
    page.fill("#search", word)
    assert 0 < int(text(page, ".counter").split()[0]) <= FEATURES
    assert features(page)
    page.fill("#search", "no such token at all")
    assert features(page) == []
    page.fill("#search", "")
    page.click('[data-sort="frequency"]')
    shares = [float(t.replace("%", "")) for t in page.locator("td.col-frequency").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    page.select_option("#show", "dead")
    assert features(page) == [str(DEAD)]


def test_a_feature_has_graded_marks_and_says_how_strongly_it_is_on(visit, kind):
    page = visit(f"feature/{USUAL}")
    page.get_by_role("heading", name=f"Feature {USUAL}", exact=True, level=1).wait_for()
    marks = page.locator(".context-list mark")
    strengths = {mark.evaluate("m => m.style.getPropertyValue('--strength')") for mark in marks.all()}
    assert len(strengths) > 1  # a BAE of one bit has one
    assert marks.first.get_attribute("title").endswith("% of the highest")
    panel = page.locator("section", has=page.locator("h2", has_text="How strongly"))
    assert panel.locator("svg").count() == 1
    named = "Contexts by activation" if kind == "sae" else "Contexts by burstiness"
    assert named in page.locator("h2").all_inner_texts()
    assert page.locator(".tiles.small dt", has_text="prior").count() == (kind != "sae")


def test_the_dead_and_the_dense_one_say_so(visit):
    page = visit(f"feature/{DEAD}")
    assert "dead" in text(page, ".notice")
    assert page.locator("h2", has_text="How strongly").count() == 0
    page.goto(page.url.replace(f"feature/{DEAD}", f"feature/{DENSE}"))
    page.get_by_role("heading", name=f"Feature {DENSE}", exact=True, level=1).wait_for()
    assert float(text(page, ".tiles.small dd").split("%")[0]) > 50


@pytest.mark.parametrize(
    ("width", "theme"),
    [pytest.param(1280, "light", id="desk-light"), pytest.param(390, "dark", id="phone-dark", marks=pytest.mark.slow)],
)
def test_no_rule_of_accessibility_is_broken(visit, tmp_path, width, theme):
    page = visit(width=width, theme=theme)
    for address in ("overview", "features", f"feature/{USUAL}", f"feature/{DEAD}", f"feature/{DENSE}"):
        page.goto(f"{page.url.split('#')[0]}#{address}")
        page.wait_for_timeout(50)
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [n["html"][:160] for n in v["nodes"][:3]]) for v in found] == [], address
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        page.screenshot(path=tmp_path / f"{address.replace('/', '-')}.png", full_page=True)  # pytest keeps some, to look at
