"""The main job, `bae-lens demo`: everything a user would do on a first day, by public functions only and in that order."""

import dataclasses
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import SAE
from tabulate import tabulate

import bae_lens
from bae_lens.activations.harvest import Activations
from bae_lens.activations.models import find_hook_point, hook_shape
from bae_lens.activations.text import Windows
from bae_lens.analyze.contexts import FeatureContexts, feature_contexts, spread_features
from bae_lens.analyze.description_length import code_length
from bae_lens.analyze.fidelity import Baseline, Fidelity, ablation_baseline, fidelity
from bae_lens.analyze.statistics import code_statistics
from bae_lens.compare.baselines import standard, topk, train_baseline
from bae_lens.demo import demo_model_dir
from bae_lens.demo.corpus import split_text
from bae_lens.demo.describe import Row, describe, describe_contexts, describe_fidelity, table
from bae_lens.demo.steering import Steered, activations_where_on, describe_steering, steer_strongest
from bae_lens.files import check_output_directory, check_output_file, new_directory, write_json, write_text
from bae_lens.intervene.inspect import Inspection
from bae_lens.training.config import Recipe
from bae_lens.training.trainer import Trained

EMBEDDED_HOOK = "blocks.1.hook_resid_pre"
EMBEDDED_ENTROPY_WEIGHT = 0.2
"""At 0.1 a third of the bits are on for more than a tenth of the tokens there."""
CONTEXT_SIZE = 256
SAVED = ("bae", "results.json", "table.md", "inspection.html", "report.html")
"""What a run's directory holds; a directory that holds anything else is never replaced."""


@dataclass(kw_only=True)
class DemoOptions:
    """What `bae-lens demo` takes."""

    model: str | None = None
    """Model directory or name; the embedded tiny Llama if not given."""
    text: Path | None = None
    """Text file, a document a line; the embedded corpus if not given."""
    hook: str | None = None
    """Hook point; the embedded default's own, or the residual stream at the middle layer."""
    out: Path = Path("runs/demo")
    """Directory for everything that is made."""
    json: Path | None = None
    """File for every number."""
    replace: bool = False
    """Take the place of an earlier run in `out`, once this one is whole."""
    steps: int = 3000
    tokens: int = 400_000
    """Training tokens to harvest at most."""
    expansion: float = 4
    recipe: str = "recommended"
    entropy_weight: float | None = None
    """alpha_e; the recipe's own if not given (0.2 for the embedded default)."""
    seed: int = 0
    device: str = "cpu"


class Data(NamedTuple):
    """Text and the activations that it leaves at the hook point."""

    train_windows: Windows
    held_out_windows: Windows
    train: Activations
    held_out: Activations


class Made(NamedTuple):
    """What the job made, for who goes on from it."""

    model: Any
    model_name: str
    text_name: str
    hook_name: str
    recipe: Recipe
    trained: Trained
    fidelity: Fidelity
    data: Data
    path: str
    """Where the BAE will be."""


Report = Callable[[Path, Made], None]
"""Writes a page on what was made to a file."""


def run_demo(options: DemoOptions, say: Callable[[str], None] = print, report: Report | None = None) -> dict[str, Any]:
    """Runs the main job and returns every number that it printed.

    Args:
        report: Writes report.html beside the BAE.

    Raises:
        FileExistsError, PermissionError: If the output cannot be written (before anything is computed).
    """
    started = time.perf_counter()
    check_output_directory(options.out, replace=SAVED if options.replace else ())
    if options.tokens < 1:
        raise ValueError(f"--tokens must be at least 1, got {options.tokens}")
    if options.json:
        check_output_file(options.json)

    say(f"\n== Load {options.model or 'the embedded tiny Llama'}")
    model = bae_lens.load_model(options.model or demo_model_dir(), device=options.device)
    hook_name = options.hook or (EMBEDDED_HOOK if options.model is None else f"blocks.{model.cfg.n_layers // 2}.hook_resid_pre")
    find_hook_point(model, hook_name, writing=True)
    recipe = demo_recipe(model, options, hook_name)
    say(f"{model.cfg.n_layers} layers, d_model {model.cfg.d_model}, vocabulary {model.cfg.d_vocab}")

    say(f"\n== Harvest {hook_name}")
    data = harvest_text(model, options, hook_name)
    say(f"{len(data.train.vectors)} training vectors and {len(data.held_out.vectors)} held out, BOS left out")

    say("\n== Train a Binary Autoencoder")
    metadata = sae_metadata(model, options, hook_name)
    with timed() as bae_seconds:
        trained = bae_lens.train(data.train.vectors, recipe, metadata=metadata)
    stats = code_statistics(trained.bae, data.held_out.vectors)
    say(describe(stats, len(trained.flipped), nested=trained.bae.is_nested))

    say("\n== Splice it into the model")
    baseline = ablation_baseline(model, data.held_out_windows, hook_name, data.train.vectors.mean(0))
    bae_row = measure("BAE", trained.bae, model, data, baseline, bae_seconds[0])
    say(describe_fidelity(bae_row.fidelity))

    say("\n== What five of its features fire on")
    shown = spread_features(trained.bae, data.held_out.vectors, 5)
    contexts = feature_contexts(trained.bae, data.held_out, data.held_out_windows, model.tokenizer, shown)
    say("\n".join(describe_contexts(c) for c in contexts))

    say("\n== Inspect a prompt")
    prompt = prompt_of(model, data.held_out_windows)
    inspection = bae_lens.inspect(model, trained.bae, prompt)
    say(inspection.table())

    say("\n== Steer with one feature")
    steered = steer_strongest(model, trained.bae, prompt, activations_where_on(trained.bae, data.held_out.vectors, shown))
    say(describe_steering(steered) if steered else "no feature of this BAE fires: there is none to steer with")

    say("\n== Beside SAELens' own SAEs: same activations, width and steps")
    rows = [bae_row, *train_others(model, data, recipe, metadata, baseline, k=max(1, round(stats.l0)))]
    say(tabulate(table(rows), headers="keys", tablefmt="simple"))
    say("bits/token is the held-out code length; read it together with the FVU that it buys.")

    results = numbers(options, recipe, hook_name, data, trained, rows, contexts, inspection, steered)
    results["seconds"] = time.perf_counter() - started
    if report:
        say("\n== Write a report of every feature")
    text_name, path = str(options.text or "the embedded corpus"), str(options.out / "bae")
    made = Made(model, metadata["model_name"], text_name, hook_name, recipe, trained, bae_row.fidelity, data, path)
    save_run(options, made, results, rows, inspection, report)
    written = ["bae/ (a SAELens directory)", *(name for name in SAVED[1:] if name != "report.html" or report)]
    say(f"\nSaved to {options.out}: {', '.join(written)}")
    say(f"Everything took {time.perf_counter() - started:.0f} s. Next: bae = SAE.load_from_disk('{options.out / 'bae'}')")
    if report:
        say(f"Open in a browser: {(options.out / 'report.html').absolute().as_uri()}")
    return results


def numbers(
    options: DemoOptions,
    recipe: Recipe,
    hook_name: str,
    data: Data,
    trained: Trained,
    rows: list[Row],
    contexts: list[FeatureContexts],
    inspection: Inspection,
    steered: Steered | None,
) -> dict[str, Any]:
    """All that the job found, for JSON."""
    return {
        "model": options.model or "embedded",
        "text": str(options.text or "embedded"),
        "hook_name": hook_name,
        "recipe": options.recipe,
        **sparsity_weights(recipe),
        "steps": recipe.trainer.total_steps(len(data.train.vectors)),
        "batch_size": recipe.trainer.batch_size,
        "seed": options.seed,
        "train_tokens": len(data.train.vectors),
        "flipped": len(trained.flipped),
        "history": [row._asdict() for row in trained.history],
        "rows": [row.numbers() for row in rows],
        "features": [{**c._asdict(), "contexts": [x._asdict() for x in c.contexts]} for c in contexts],
        "inspection": inspection.to_dict(),
        "steering": steered._asdict() if steered else None,
    }


def harvest_text(model: Any, options: DemoOptions, hook_name: str) -> Data:
    """Activations of training and held-out text, split by document (by module where the text is the embedded corpus)."""
    split = split_text(options.text, options.seed)
    context = min(CONTEXT_SIZE, model.cfg.n_ctx)
    train, held_out = (bae_lens.tokenize(model.tokenizer, documents, context) for documents in split)
    return Data(
        train,
        held_out,
        bae_lens.harvest(model, train, hook_name, max_tokens=options.tokens),
        bae_lens.harvest(model, held_out, hook_name, max_tokens=options.tokens // 4),
    )


def demo_recipe(model: Any, options: DemoOptions, hook_name: str) -> Recipe:
    """The recipe that was asked for, at the hook point's width."""
    make = bae_lens.recipes.get_recipe(options.recipe)
    shape = hook_shape(model, hook_name)
    recipe = make(math.prod(shape), options.expansion, steps=options.steps, seed=options.seed, device=options.device)
    if options.entropy_weight is not None and recipe.sae.objective != "entropy":
        raise ValueError(
            f"the recipe {options.recipe!r} has no entropy weight: leave --entropy-weight away "
            "(how sparse it is says its refine_weight, the argument `weight` of bae_lens.recipes.rate_distortion)"
        )
    embedded = options.model is None and options.recipe == "recommended"
    weight = EMBEDDED_ENTROPY_WEIGHT if options.entropy_weight is None and embedded else options.entropy_weight
    changes: dict[str, Any] = {} if weight is None else {"entropy_weight": weight}
    changes |= {"reshape_activations": "hook_z"} if len(shape) == 2 else {}
    return recipe._replace(sae=dataclasses.replace(recipe.sae, **changes))


def sparsity_weights(recipe: Recipe) -> dict[str, float | None]:
    """What says how sparse a code is: alpha_e, or of refined codes lambda; None is what its objective has not got."""
    refined = recipe.sae.objective == "rate_distortion"
    return {
        "entropy_weight": None if refined else recipe.sae.entropy_weight,
        "refine_weight": recipe.sae.refine_weight if refined else None,
    }


def sae_metadata(model: Any, options: DemoOptions, hook_name: str) -> dict[str, Any]:
    """What SAELens wants to know of where an SAE belongs."""
    return {
        "model_name": options.model or str(demo_model_dir()),
        "hook_name": hook_name,
        "context_size": min(CONTEXT_SIZE, model.cfg.n_ctx),
        "prepend_bos": True,
    }


def measure(name: str, sae: SAE[Any], model: Any, data: Data, baseline: Baseline, seconds: float) -> Row:
    """Everything that the table says of one dictionary, on held-out text."""
    return Row(
        name,
        code_statistics(sae, data.held_out.vectors),
        fidelity(model, sae, data.held_out_windows, baseline),
        code_length(sae, data.train.vectors, data.held_out.vectors),
        seconds,
    )


def train_others(model: Any, data: Data, recipe: Recipe, metadata: dict[str, Any], baseline: Baseline, k: int) -> Iterator[Row]:
    """SAELens' TopK with as many features on as the BAE has bits, and Standard with SAELens' own L1 coefficient."""
    for name, other in ((f"TopK, k = {k}", topk(k)), ("Standard, L1 = 1", standard(1.0))):
        with timed() as seconds:
            sae = train_baseline(
                other, data.train.vectors, recipe.sae.d_sae, recipe.trainer, metadata, recipe.sae.reshape_activations
            )
        yield measure(name, sae, model, data, baseline, seconds[0])


def prompt_of(model: Any, windows: Windows, tokens: int = 12) -> torch.Tensor:
    """The beginning of the first held-out window that is long enough."""
    row = int((windows.lengths >= min(tokens, int(windows.lengths.max()))).nonzero()[0])
    return windows.tokens[row, :tokens].unsqueeze(0)


def save_run(
    options: DemoOptions, made: Made, results: dict[str, Any], rows: list[Row], inspection: Any, report: Report | None
) -> None:
    """Everything into one directory, whole or not at all; then the JSON where it was asked for."""
    with new_directory(options.out, replace=SAVED if options.replace else ()) as directory:
        bae_lens.save(made.trained.bae, directory / "bae")
        write_json(directory / "results.json", results)
        write_text(directory / "table.md", tabulate(table(rows), headers="keys", tablefmt="github") + "\n")
        policy = "default-src 'none'; style-src 'unsafe-inline'"
        head = f'<!doctype html><meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{policy}">'
        page = f"{head}<title>BAE inspection</title>{inspection._repr_html_()}\n"
        write_text(directory / "inspection.html", page)
        if report:
            report(directory / "report.html", made)
    if options.json:
        write_json(options.json, results)


@contextmanager
def timed() -> Iterator[list[float]]:
    """Yields a list that holds the block's wall time in seconds once it has ended."""
    started, seconds = time.perf_counter(), []
    yield seconds
    seconds.append(time.perf_counter() - started)
