"""The page in a real browser."""

import math

import pytest
from axe_playwright_python.sync_playwright import Axe

from bae_lens.demo import demo_model_dir
from bae_lens.report.collect import Shown
from bae_lens.report.job import About, write_report
from bae_lens.report.results import Named
from bae_lens.training.metrics import HistoryRow

HOSTILE_NAME = '</script><img src=x onerror="window.hacked = 1">'


@pytest.fixture(scope="module")
def page_file(tmp_path_factory, make_source):
    """A report with everything in it, of hostile texts."""
    import torch

    import bae_lens

    with torch.random.fork_rng():
        torch.manual_seed(0)
        bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=128, d_sae=300))
        bae.W_enc.data.normal_(std=0.1)
        bae.W_dec.data.normal_(std=0.3)
    source = make_source(bae)
    bae.b_enc.data = -(source.vectors @ bae.W_enc).quantile(0.9, dim=0).detach()
    bae.b_enc.data[7] = -1e3
    bae.W_enc.data[:, 9] *= -1
    bae.b_enc.data[9] *= -1
    bae.estimate_prior(source.vectors)
    named = {f: Named(HOSTILE_NAME, f % 9 / 8, 0.1, 0.9, "scored", None, 0.0, None, None) for f in range(0, 300, 2)}
    figures = {name: [0.5, 0.4, 0.6] for name in ("fvu", "bits", "bits_fvu", "l0", "live", "dead", "dense")}
    figures |= {"ce_from_zero": None, "ce_from_mean": None}
    line = {"method": "<b>bae</b>", "width": "x4", "family": "bae", "setting": "0.1", "seeds": 3, "figures": figures}
    history = [HistoryRow(s, 3.0, 2.0, 1.0, 0.0, 0.5, 90.0, 200, 3, 20.0, 1e-3)._asdict() for s in range(0, 90, 10)]
    about = About(
        path='runs/"l1"',
        recipe={"sae": {"entropy_weight": 0.1, "note": HOSTILE_NAME}},
        curves={
            "train": {name: [row[name] for row in history] for name in ("step", "fvu", "entropy", "l0")},
            "validation": {name: [history[-1][name]] for name in ("step", "fvu", "entropy")},
        },
        comsem=named,
        compare={"at": [0.1], "figures": list(figures), "lines": [line, {**line, "method": "topk", "family": "topk"}]},
        entropy=[
            {"bae": "of the layer", "hook": f"blocks.{n}.hook_resid_pre", "position": p, "entropy": 9.0 * p, "fvu": 0.2}
            for n in range(2)
            for p in (1, 2, 4, 8)
        ],
    )
    out = tmp_path_factory.mktemp("page") / "report.html"
    write_report(bae, source, about, out, Shown(top=6, random=3), lambda line: None, progress=False)
    return out


def text(page, selector):
    return page.locator(selector).first.inner_text()


def first_features(page, count=5):
    return page.locator("tbody tr[aria-rowindex] th a").all_inner_texts()[:count]


def test_the_overview_shows_fvu_and_entropy_together_and_every_part(visit):
    page = visit()
    pair = text(page, ".tile.pair")
    assert "variance unexplained" in pair
    assert "bits a token" in pair
    headings = page.locator("h2").all_inner_texts()
    for heading in (
        "How often features fire",
        "Map of decoder rows",
        "Training",
        "Recipe",
        "Beside other methods",
        "ComSem scores",
    ):
        assert heading in headings
    assert "What the model loses" in headings
    assert "Entropy by position" in headings
    assert page.title().startswith("Overview")


def test_a_curve_of_one_point_is_a_point(visit):
    page = visit()
    curves = page.locator("section", has=page.locator("h2", has_text="Training")).locator("svg")
    assert curves.count() == 3
    assert [curves.nth(n).locator("circle").count() for n in range(3)] == [1, 1, 0]  # none of L0
    assert "validation: 0.5" in curves.nth(0).locator("circle title").text_content()


def test_the_table_sorts_searches_and_filters_and_its_address_says_how(visit):
    page = visit("features")
    assert first_features(page) == ["0", "1", "2", "3", "4"]
    assert "298 of 300" in text(page, ".counter") or "299 of 300" in text(page, ".counter")  # one is dead
    page.click('[data-sort="frequency"]')
    shares = [float(t.replace("%", "")) for t in page.locator("td.col-frequency").all_inner_texts()]
    assert shares == sorted(shares, reverse=True)
    assert page.locator('th[aria-sort="descending"]').inner_text().strip().startswith("Frequency")
    page.click('[data-sort="frequency"]')
    shares = [float(t.replace("%", "")) for t in page.locator("td.col-frequency").all_inner_texts()]
    assert shares == sorted(shares)
    assert page.url.endswith("sort=frequency")
    page.fill("#search", "#123")
    assert first_features(page, 1) == ["123"]
    page.fill("#search", "items")
    found = int(text(page, ".counter").split()[0])
    assert 0 < found < 300
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.input_value("#search") == "items"
    assert int(text(page, ".counter").split()[0]) == found
    page.fill("#search", "no such token at all")
    assert "No feature is like that" in text(page, "tbody")
    page.click("tbody button")
    assert text(page, ".counter") == "300 features"
    page.select_option("#show", "dead")
    assert first_features(page) == ["7"]


def test_only_rows_in_sight_are_elements_and_the_last_one_is_reached(visit):
    page = visit("features?show=all")
    assert page.locator("tbody tr[aria-rowindex]").count() < 60
    assert page.get_attribute("table.features", "aria-rowcount") == "301"
    page.evaluate("() => { const s = document.querySelector('.scroller'); s.scrollTop = s.scrollHeight; }")
    page.wait_for_selector('tr[aria-rowindex="301"]')
    assert page.locator('tr[aria-rowindex="301"] a').inner_text() == "299"
    page.locator('tr[aria-rowindex="301"] a').click()
    page.wait_for_selector("text=Feature 299")
    page.go_back()
    page.wait_for_selector('tr[aria-rowindex="301"]')  # where it was


@pytest.mark.parametrize(("width", "query"), [(1280, ""), (1000, ""), (390, ""), (390, "?q=no+such+token+at+all")])
def test_the_table_fills_the_screen_at_every_width(visit, width, query):
    page = visit(f"features{query}", width=width)
    page.evaluate("() => { document.querySelector('.scroller').scrollTop = 900; }")
    page.wait_for_timeout(60)
    box = page.locator("table.features").bounding_box()
    right = max(th["x"] + th["width"] for th in (t.bounding_box() for t in page.locator("thead th").all()) if th)
    assert right == pytest.approx(box["x"] + box["width"], abs=1)
    assert page.locator("thead th.col-tokens").bounding_box()["width"] > 150
    assert page.locator(".scroller").evaluate("s => s.scrollWidth - s.clientWidth") == 0


def test_a_feature_is_opened_followed_and_left_by_links_keys_and_the_back_button(visit):
    page = visit("features")
    page.click("tbody tr[aria-rowindex='5'] a")
    page.get_by_role("heading", name="Feature 3", exact=True, level=1).wait_for()
    assert page.evaluate("() => document.activeElement.tagName") == "H1"
    partner = page.locator(".features-list a").first
    number = partner.locator(".number").inner_text().lstrip("#")
    partner.click()
    page.get_by_role("heading", name=f"Feature {number}", exact=True, level=1).wait_for()
    assert page.url.endswith(f"#feature/{number}")
    page.go_back()
    page.get_by_role("heading", name="Feature 3", exact=True, level=1).wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_role("heading", name="Feature 4", exact=True, level=1).wait_for()
    page.keyboard.press("k")
    page.get_by_role("heading", name="Feature 3", exact=True, level=1).wait_for()
    page.keyboard.press("Escape")
    page.wait_for_selector("table.features")
    page.keyboard.press("/")
    page.keyboard.type("#9")
    assert first_features(page, 1) == ["9"]


def test_the_contexts_show_the_text_and_mark_the_token(visit, documents):
    page = visit("feature/5")
    lines = page.locator(".context-list li .text")
    assert lines.count() == 9
    joined = " ".join(" ".join(documents).split())
    plain = [line for line in lines.all_inner_texts() if line.isascii() and "\\u" not in line]  # that is how unseen ones look
    assert plain
    for line in plain:
        assert line.strip() in joined
    assert page.locator(".context-list li mark.focus").count() == 9
    assert "bits" in text(page, ".tiles.small")


def test_dead_features_and_those_that_are_usually_on_say_so(visit):
    page = visit("feature/7")
    assert "dead" in text(page, ".notice")
    page.goto(page.url.replace("feature/7", "feature/9"))
    assert "on most of the time" in text(page, ".notice")
    page.goto(page.url.replace("feature/9", "feature/300"))
    assert text(page, "h1") == "No such feature"
    page.goto(page.url.replace("feature/300", "feature/<img src=x onerror=window.hacked=1>"))
    assert text(page, "h1") == "No such feature"


def test_the_snippet_is_code_that_runs_with_whatever_name_was_given(visit):
    page = visit("feature/5")
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.click("text=Copy the code")
    page.wait_for_selector("text=Copied")
    code = page.evaluate("() => navigator.clipboard.readText()")
    compile(code, "snippet", "exec")
    assert 'load_sae("runs/\\"l1\\""' in code
    assert f'load_model("{demo_model_dir()}")' in code
    assert "{5: 4}" in code
    page.click("text=Copy link")
    assert page.evaluate("() => navigator.clipboard.readText()").endswith("report.html#feature/5")


def test_hostile_text_is_shown_as_it_is(visit):
    page = visit("features?q=window.hacked&show=all")
    page.goto(page.url.replace("features?q=window.hacked&show=all", "feature/4"))
    assert text(page, ".phrase") == HOSTILE_NAME
    shown = "".join(page.locator(".context-list").all_inner_texts())
    assert page.locator("main img, main script, main svg[onload]").count() == 0
    assert "\u202e" not in shown
    page.goto(page.url.replace("feature/4", "overview"))
    page.click("summary")
    assert HOSTILE_NAME not in page.title()


def test_the_theme_follows_the_system_and_the_switch_is_remembered(visit):
    page = visit(theme="dark")
    background = "() => getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    page.click("#theme")
    light = page.evaluate(background)
    assert light != dark
    page.reload()
    page.wait_for_selector("html[data-ready]")
    assert page.evaluate(background) == light
    assert page.get_attribute("#theme", "aria-label") == "Theme: light"
    page.click("#theme")
    assert page.evaluate(background) == dark


def test_a_bar_of_the_histogram_opens_its_features(visit):
    page = visit()
    page.locator(".chart .hit").last.click()
    page.wait_for_selector("table.features")
    assert page.locator(".filters button").inner_text().startswith("on for")
    low, high = (float(x) for x in (page.url.split("from=")[1].split("&")[0], page.url.split("to=")[1]))
    shares = [float(t.replace("%", "")) / 100 for t in page.locator("td.col-frequency").all_inner_texts()]
    assert shares
    assert all(low * 0.99 <= share <= high * 1.01 for share in shares)
    page.click(".filters button")
    assert page.locator(".filters button").count() == 0


def test_printed_the_table_has_its_first_rows_all_at_once(visit):
    page = visit("features?show=all")
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    assert page.locator("tbody tr[aria-rowindex]").count() == 200
    page.emulate_media(media="print")
    assert page.locator(".top").is_hidden()
    assert not math.isnan(page.evaluate("() => document.body.scrollHeight"))


LOOKS = [
    pytest.param(1280, "light", id="desk-light"),
    pytest.param(390, "dark", id="phone-dark"),
    pytest.param(1280, "dark", id="desk-dark", marks=pytest.mark.slow),
    pytest.param(390, "light", id="phone-light", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("width", "theme"), LOOKS)
def test_no_rule_of_accessibility_is_broken_and_nothing_is_wider_than_the_screen(visit, tmp_path, width, theme):
    page = visit(width=width, theme=theme)
    for address in ("overview", "features", "feature/4", "feature/7", "feature/9"):  # those are dead, and usually on
        page.goto(f"{page.url.split('#')[0]}#{address}")
        page.wait_for_timeout(50)
        found = Axe().run(page).response["violations"]
        assert [(v["id"], [n["html"][:160] for n in v["nodes"][:3]]) for v in found] == []
        assert page.evaluate("() => document.documentElement.scrollWidth") <= width
        picture = tmp_path / f"{address.replace('/', '-')}.png"  # pytest keeps the last three runs' to look at
        page.screenshot(path=picture, full_page=True)
        assert picture.stat().st_size > 10_000
