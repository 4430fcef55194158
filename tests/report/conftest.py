"""A little text with everything in it that a page could trip over, and the browser to look at pages in."""

import shutil

import pytest
from embedded import HOOK
from mini_run import mini  # noqa: F401

from bae_lens.demo import demo_model_dir
from bae_lens.report.source import from_text

CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
HOSTILE = (
    "</script><script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload=window.hacked=1>",
    "<!-- --> <style>body{display:none}</style> &lt;b&gt; &amp; \u202egnol\u202c \u2028 \u0000\u0007",
    "javascript:window.hacked=1 {{7*7}} ${window.hacked=1} `x`",
)
PLAIN = ("Return the number of items in the list.", "The module raises an error if the file is not open.", "naïve café 😀 中文")


@pytest.fixture(scope="session")
def documents():
    return [" ".join([text] * 9) for text in (*PLAIN, *HOSTILE, *PLAIN[::-1])]


@pytest.fixture(scope="session")
def make_source(models, documents):
    """The activations of that text at the SAE's hook point."""
    from transformer_lens import HookedTransformer

    def make(sae, tokens=4000):
        sae.cfg.metadata.hook_name = HOOK
        model = models(HookedTransformer)
        return from_text(model, documents, sae, name="a text", model_name=str(demo_model_dir()), tokens=tokens)

    return make


@pytest.fixture
def make_ready(make_bae, make_source):
    """A random BAE with a prior, and its source."""

    def make(bits_per_feature=1, **fields):
        bae = make_bae(bits_per_feature, **fields)
        source = make_source(bae)
        bae.b_enc.data = -(source.vectors @ bae.W_enc).quantile(0.85, dim=0).detach()  # each bit is on for 15 %
        bae.estimate_prior(source.vectors)
        return bae, source

    return make


@pytest.fixture(scope="session")
def make_sae():
    """A random SAE of another architecture, some of whose features fire."""
    import torch
    from sae_lens import StandardSAE, StandardSAEConfig

    def make(d_sae=40):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            sae = StandardSAE(StandardSAEConfig(d_in=128, d_sae=d_sae))
            sae.W_enc.data.normal_(std=0.1)
            sae.b_enc.data.fill_(-1.0)
            sae.W_dec.data.normal_(std=0.2)
        sae.cfg.metadata.hook_name = HOOK
        return sae

    return make


@pytest.fixture(scope="module")
def browser():
    """The Chromium that is installed, for one file's tests: while Playwright's event loop runs, asyncio.run is refused."""
    executable = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if executable is None:
        pytest.skip(f"no Chromium: none of {', '.join(CHROMIUM)} is installed (tests/SKIPPED.md)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=executable)
        yield opened
        opened.close()


@pytest.fixture
def visit(browser, page_file):
    """Opens the page of a file's `page_file` at an address; everything that a browser complains of is an error at the end."""
    opened, complaints, requests = [], [], []

    def open_page(address="", *, width=1280, theme="light", touch=False):
        context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, has_touch=touch, reduced_motion="reduce"
        )
        page = context.new_page()
        opened.append(page)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto(f"{page_file.as_uri()}#{address}")
        page.wait_for_selector("html[data-ready]")
        return page

    yield open_page
    for page in opened:
        assert page.evaluate("() => window.hacked") is None
        page.context.close()
    assert complaints == []
    assert all(url.startswith(("file:", "blob:")) for url in requests)
