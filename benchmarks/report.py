"""How large a report is, how fast it opens in headless Chromium, and how fast it answers: by default at 8,192 features.

The goals are of that size: under 25 MB, open in under 2 s, the first interaction in under 200 ms (medians of the visits).

The BAE is not trained: its encoder columns are data points of the embedded Llama at `blocks.1.hook_resid_pre`, its biases make
features fire on 0.02 % to 5 % of the tokens. Text, contexts and everything else are as in any report.

    python benchmarks/report.py --json report.json
"""

import argparse
import json
import math
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from tabulate import tabulate

import bae_lens
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import python_docs
from bae_lens.report.job import About, write_report
from bae_lens.report.source import from_text

HOOK = "blocks.1.hook_resid_pre"
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
RAREST, DENSEST = 2e-4, 5e-2
OPEN, FIRST = "open", "first interaction: open the table"
MEGABYTES = 25
MILLISECONDS = {OPEN: 2000, FIRST: 200}
"""Goals: what is less is met."""
EVENT = """
() => new Promise((done) => {
  window.longest = 0;
  const look = (list) => { for (const e of list.getEntries()) window.longest = Math.max(window.longest, e.duration); };
  new PerformanceObserver(look).observe({ type: "event", durationThreshold: 16, buffered: true });
  done();
})"""


def made_bae(vectors, features):
    """Features in the directions of data points, at frequencies that are even on a logarithmic scale."""
    generator = torch.Generator().manual_seed(0)
    d_in = vectors.shape[1]
    bae = bae_lens.BAE(bae_lens.BAEConfig(d_in=d_in, d_sae=features))
    centred = vectors - vectors.mean(0)
    rows = torch.nn.functional.normalize(centred[torch.randint(len(centred), (features,), generator=generator)], dim=1)
    sample = vectors[torch.randperm(len(vectors), generator=generator)[:8192]]
    share = torch.logspace(math.log10(RAREST), math.log10(DENSEST), features)[torch.randperm(features, generator=generator)]
    bae.W_enc.data = rows.T.contiguous()
    for part in torch.arange(features).split(512):
        ranked = (sample @ bae.W_enc[:, part]).sort(0, descending=True).values
        bae.b_enc.data[part] = -ranked.gather(0, (share[part] * len(sample)).long().unsqueeze(0))[0]
    bae.W_dec.data = rows * centred.norm(dim=1).mean() / 60
    bae.b_dec.data = vectors.mean(0)
    bae.cfg.metadata.hook_name, bae.cfg.metadata.model_name = HOOK, str(demo_model_dir())
    bae.estimate_prior(vectors)
    return bae


def browse(page, address):
    """Milliseconds of one visit: until the page is painted, and the longest delay of each kind of interaction."""
    started = time.perf_counter()
    page.goto(address)
    page.wait_for_selector("html[data-ready]")
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    found = {OPEN: (time.perf_counter() - started) * 1000}
    page.evaluate(EVENT)

    def act(name, do):
        page.evaluate("() => { window.longest = 0; }")
        do()
        page.wait_for_timeout(250)
        found[name] = page.evaluate("() => window.longest")

    act(FIRST, lambda: page.click('nav a[data-view="features"]'))
    act("sort by frequency", lambda: page.click('[data-sort="frequency"]'))
    act("search, a key", lambda: page.type("#search", "e"))
    act("search, another key", lambda: page.type("#search", "t"))
    act("open a feature", lambda: page.click("tbody tr[aria-rowindex] a >> nth=3"))
    act("next feature, by key", lambda: page.keyboard.press("ArrowRight"))
    act("back to the overview", lambda: page.click('nav a[data-view="overview"]'))
    return found


def make_report(out, features, tokens):
    """A report of so many features on so many tokens of the embedded corpus."""
    model, corpus = bae_lens.load_model(demo_model_dir()), python_docs()
    text, bae = [*corpus.held_out, *corpus.train], bae_lens.BAE(bae_lens.BAEConfig(d_in=model.cfg.d_model, d_sae=1))
    bae.cfg.metadata.hook_name = HOOK
    source = from_text(model, text, bae, name="embedded", model_name=str(demo_model_dir()), tokens=tokens)
    source = source._replace(windows=None, without="this benchmark is of the page")
    return write_report(made_bae(source.vectors, features), source, About("runs/bae"), out)


def visit(out, chromium, visits):
    """The times of some visits, each by a browser that has seen nothing."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium)
        for _ in range(visits):
            context = browser.new_context(viewport={"width": 1280, "height": 900})
            yield browse(context.new_page(), out.absolute().as_uri())
            context.close()
        browser.close()


def met(value, goal):
    return ["", ""] if goal is None else [f"under {goal}", "yes" if value < goal else "NO"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--features", type=int, default=8192)
    parser.add_argument("--tokens", type=int, default=100_000)
    parser.add_argument("--visits", type=int, default=5)
    parser.add_argument("--keep", type=Path, help="where to put the report")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        parser.error(f"no Chromium: none of {', '.join(CHROMIUM)} is installed")
    with tempfile.TemporaryDirectory() as directory:
        out = args.keep or Path(directory) / "report.html"
        written = make_report(out, args.features, args.tokens)
        visits = list(visit(out, chromium, args.visits))
    milliseconds = {name: statistics.median(one[name] for one in visits) for name in visits[0]}
    worst = {name: max(one[name] for one in visits) for name in visits[0]}
    megabytes = written.bytes / 1e6
    found = {
        "features": args.features,
        "tokens": written.collected.overview.tokens,
        "l0": written.collected.overview.l0,
        "seconds": written.seconds,
        "megabytes": megabytes,
        "milliseconds": milliseconds,
        "worst_milliseconds": worst,
        "goals": {"megabytes": MEGABYTES, "milliseconds": MILLISECONDS},
    }
    print(f"\n{args.features} features, {found['tokens']} tokens, L0 {found['l0']:.0f}")
    rows = [["size, MB", f"{megabytes:.1f}", "", *met(megabytes, MEGABYTES)]]
    rows += [[f"{n}, ms", f"{ms:.0f}", f"{worst[n]:.0f}", *met(ms, MILLISECONDS.get(n))] for n, ms in milliseconds.items()]
    print(tabulate(rows, headers=["", "median", "worst", "goal", "met"], tablefmt="github"))
    if args.json:
        args.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
