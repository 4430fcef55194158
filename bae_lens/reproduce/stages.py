"""The stages of the job: each calls the function of an existing command, which takes up its own directory where it was."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bae_lens.activations.dataset import ActivationDataset
from bae_lens.activations.harvest_disk import harvest_to_disk
from bae_lens.activations.harvest_options import DTYPES
from bae_lens.activations.hugging_face import load_for_harvest
from bae_lens.activations.sources import text_source
from bae_lens.activations.text import read_documents
from bae_lens.analyze.contexts import spread_features
from bae_lens.benchmark.codec_job import CodecOptions, run_codec_table
from bae_lens.benchmark.more_bit import MoreBitOptions, run_more_bit, table
from bae_lens.benchmark.synthetic import SyntheticOptions, run_synthetic
from bae_lens.benchmark.synthetic_report import write_report as write_synthetic
from bae_lens.cells import CellDirectory
from bae_lens.compare.data import open_data
from bae_lens.compare.job import CompareOptions, run_compare, sae_directory, shared_settings
from bae_lens.compare.lines import lines_of
from bae_lens.compare.report import write_comparison
from bae_lens.compare.transcoder import open_pairs
from bae_lens.compare.transcoder_job import TranscoderOptions, run_transcoders
from bae_lens.comsem.job import InterpretOptions, run_interpret
from bae_lens.files import new_directory, write_text
from bae_lens.jobs import Failure
from bae_lens.model.store import load
from bae_lens.reproduce.bench import Bench, pieces, write_documents, write_texts
from bae_lens.reproduce.world import DICTIONARIES, make_world, world_model, world_task
from bae_lens.sweeps.steering_job import SteerOptions, run_steering
from bae_lens.sweeps.task_job import TaskOptions, run_task_vectors
from bae_lens.traces.positions import PositionOptions, positions_chart, run_positions
from bae_lens.traces.rate_distortion import RateOptions, rate_chart, run_rate_distortion
from bae_lens.traces.report import write_report
from bae_lens.traces.shots import ShotOptions, accuracy_chart, entropy_chart, run_shots
from bae_lens.traces.two_tokens import TwoTokenOptions, run_two_tokens, two_tokens_chart

RESCALED = "relu_paper"
"""Whose rescaled magnitudes are named too ("ReLU SAE Resc.")."""


class NotGiven(ValueError):
    """A stage needs something that nobody gave: it is left out, and what rests on it cannot be tested."""


class Stage(NamedTuple):
    """One part of the job."""

    name: str
    what: str
    run: Callable[[Bench], None]
    needs: tuple[str, ...] = ()
    """Stages that come before it."""


def inputs(bench: Bench) -> None:
    """Texts, and where the size has one the Llama that learns tasks in context."""
    write_texts(bench)
    if bench.of("world"):
        make_world(bench)


def synthetic(bench: Bench) -> None:
    """Section 4.1, appendix D."""
    options = SyntheticOptions(out=bench.out / "synthetic", device=bench.on, **bench.of("synthetic"))
    write_synthetic(options, run_synthetic(options, bench.say))


def harvest(bench: Bench) -> None:
    """What features are learnt from: the layers of features, and the inputs of the MLPs before them."""
    hooks = [bench.hook(layer) for layer in bench.every_layer]
    if bench.of("transcoder"):
        hooks += [_transcoder_input(layer) for layer in bench.every_layer]
    _harvest(bench, bench.out / "activations" / "features", bench.train_text, hooks, bench.of("harvest"))


def positions(bench: Bench) -> None:
    """Hidden states by position, at every layer that is traced."""
    options = bench.of("positions")
    characters, text = options.pop("characters", None), bench.train_text
    if characters is not None and bench.splits_text:
        text = str(bench.texts / "pieces.jsonl")
        if not Path(text).is_file():
            write_documents(Path(text), pieces(read_documents(bench.train_text), characters))
    _harvest(bench, bench.out / "activations" / "positions", text, bench.traced_hooks(), options)


def entropy(bench: Bench) -> None:
    """Section 4.2."""
    options = PositionOptions(
        activations=bench.out / "activations" / "positions", out=bench.out / "entropy", **_cells(bench, "entropy")
    )
    rows, failures = run_positions(options, bench.say)
    write_report(options.out, rows, [positions_chart(rows)] if rows else [], failures=failures)
    _check(failures)


def icl(bench: Bench) -> None:
    """Section 4.3."""
    queries, demonstrations = _task(bench)
    options = ShotOptions(
        model=world_model(bench) or bench.model_name,
        task=queries,
        demonstrations=demonstrations,
        labels=bench.labels,
        out=bench.out / "icl",
        **_cells(bench, "icl"),
    )
    rows, accuracies, failures = run_shots(options, bench.say)
    charts = [accuracy_chart(accuracies), *([entropy_chart(rows)] if rows else [])]
    others = {"accuracy": [found._asdict() for found in accuracies]}
    write_report(options.out, rows, charts, failures=failures, others=others)
    _check(failures)


def two_tokens(bench: Bench) -> None:
    """Appendix B."""
    given = _cells(bench, "two-tokens")
    layer = given.pop("layer", bench.layer)
    if "tokens" in given:
        given["tokens"] = tuple(given["tokens"])
    options = TwoTokenOptions(model=bench.model_name, hook=bench.hook(layer), out=bench.out / "two-tokens", **given)
    rows, failures = run_two_tokens(options, bench.say)
    write_report(options.out, rows, [two_tokens_chart(rows)] if rows else [], failures=failures)
    _check(failures)


def rate_distortion(bench: Bench) -> None:
    """Bits a token against FVU at the main layer."""
    given, hook = _cells(bench, "rate-distortion"), bench.hook(bench.layer)
    rows, failures = [], []
    for recipe in given.pop("recipes", ["recommended"]):
        options = RateOptions(activations=_features(bench), hook=hook, recipe=recipe, out=bench.out / "rd", **given)
        rows, failed = run_rate_distortion(options, bench.say)
        failures += failed
    write_report(bench.out / "rd", rows, [rate_chart(rows, hook)] if rows else [], failures=failures)
    _check(failures)


def compare(bench: Bench) -> None:
    """Section 5.3, Table 1: at each layer of features; the SAE of each method that came nearest is kept in dictionaries/."""
    given = bench.of("compare")
    limits = {name: given.pop(name) for name in ("tokens", "held_out_tokens") if name in given}
    given.setdefault("jobs", bench.processes or 0)
    for layer in bench.every_layer:
        data = open_data(_features(bench), bench.hook(layer), device=bench.on, **limits)
        options = CompareOptions(out=bench.out / "compare" / f"layer{layer}", device=bench.on, **given)
        results = run_compare(data, options, bench.say)
        write_comparison(data, options, results)
        directory = CellDirectory.open(options.out, "compare", shared_settings(data, options))
        for line in lines_of(directory, options, results):
            if line.best is not None and not bench.dictionary(layer, line.name).is_dir():
                with new_directory(bench.dictionary(layer, line.name)) as place:
                    shutil.copytree(sae_directory(directory, line.best), place, dirs_exist_ok=True)


def transcoder(bench: Bench) -> None:
    """The paper's Transcoder of Table 1."""
    for layer in bench.every_layer:
        data = open_pairs(_features(bench), _transcoder_input(layer), bench.hook(layer), device=bench.on, **_limits(bench))
        out = bench.out / "transcoder" / f"layer{layer}"
        run_transcoders(data, TranscoderOptions(out=out, device=bench.on, **bench.of("transcoder")), bench.say)


def comsem(bench: Bench) -> None:
    """Section 5.1, appendix C, F.3: names by rules and scores, of each dictionary."""
    given = bench.of("comsem")
    methods, maps = given.pop("methods"), given.pop("umap", False)
    for layer in bench.every_layer:
        for method in [name for name in methods if bench.dictionary(layer, name).is_dir()]:
            magnitudes = {method: "auto", f"{method}_rescaled": "rescaled"} if method == RESCALED else {method: "auto"}
            for name, magnitude in magnitudes.items():
                options = InterpretOptions(
                    bae=str(bench.dictionary(layer, method)),
                    model=bench.model_name,
                    text=_named_on(bench),
                    out=bench.out / "comsem" / f"layer{layer}-{name}",
                    name=name,
                    magnitude=magnitude,
                    umap=maps and method.startswith("bae"),
                    device=bench.on,
                    **given,
                )
                run_interpret(options, say=_quiet)
                bench.say(f"comsem: {name} at layer {layer} is named")


def taskvec(bench: Bench) -> None:
    """Section 5.4."""
    given = bench.of("taskvec")
    methods = given.pop("methods", ["bae", "bae_paper", "topk_paper", "relu_paper", "gated_relu_paper", "topk"])
    known = bench.of("world")
    places = [bench.out / DICTIONARIES / name if known else bench.dictionary(bench.layer, name) for name in methods]
    saes = [str(place) for place in places if place.is_dir()]
    if known:
        given["task"] = world_task(bench)
    else:
        given["task"], given["demonstrations"] = _task(bench)
    options = TaskOptions(
        bae=saes[0],
        sae=saes[1:],
        model=world_model(bench) or bench.model_name,
        labels=bench.labels,
        out=bench.out / "taskvec",
        device=bench.on,
        **given,
    )
    run_task_vectors(options)


def steering(bench: Bench) -> None:
    """What single features do to their tokens, and what that costs."""
    given, place = bench.of("steering"), bench.dictionary(bench.layer, "bae")
    held_out = ActivationDataset(_features(bench), bench.hook(bench.layer)).split()[1].tensor(8192)
    options = SteerOptions(
        bae=str(place),
        features=sorted(spread_features(load(place), held_out, given.pop("features"))),
        prompts=_named_on(bench),
        text=bench.texts / "train.jsonl" if bench.splits_text else _named_on(bench),
        model=bench.model_name,
        out=bench.out / "steering",
        device=bench.on,
        **given,
    )
    run_steering(options)


def codec(bench: Bench) -> None:
    """Table 3: what held-out vectors take, by each way to store them."""
    given = bench.of("codec")
    methods = given.pop("methods")
    for layer in bench.every_layer:
        saes = {name: str(bench.dictionary(layer, name)) for name in methods if bench.dictionary(layer, name).is_dir()}
        out = bench.out / "codec" / f"layer{layer}"
        options = CodecOptions(out=out, activations=_features(bench), hook=bench.hook(layer), saes=saes, **given)
        run_codec_table(options, bench.say)


def more_bit(bench: Bench) -> None:
    """Section 6, Table 2."""
    given, held_out = bench.of("more-bit"), bench.held_out_text
    is_named = given.pop("named", True) and held_out is not None
    comsem = {"model": bench.model_name, "text": held_out} if is_named else {}
    options = MoreBitOptions(
        activations=_features(bench),
        hook=bench.hook(bench.layer),
        out=bench.out / "more-bit",
        device=bench.on,
        **comsem,
        **given,
    )
    write_text(options.out / "table.md", table(run_more_bit(options, _quiet)) + "\n")


STAGES = (
    Stage("inputs", "texts, and at tiny a Llama that learns tasks in context", inputs),
    Stage("synthetic", "sets of known entropy (4.1, Figs. 2, 12, 29-34)", synthetic),
    Stage("harvest", "activations for features", harvest, ("inputs",)),
    Stage("positions", "activations by position", positions, ("inputs",)),
    Stage("entropy", "entropy by layer and position (4.2, Fig. 3)", entropy, ("positions",)),
    Stage("icl", "in-context learning (4.3, Figs. 4 and 7)", icl, ("inputs",)),
    Stage("two-tokens", "sequences of two tokens (B, Fig. 11)", two_tokens),
    Stage("rate-distortion", "bits a token against FVU", rate_distortion, ("harvest",)),
    Stage("compare", "a BAE beside other dictionaries (5.3, Table 1, Figs. 5, 35-41)", compare, ("harvest",)),
    Stage("transcoder", "the paper's Transcoder (Table 1)", transcoder, ("harvest",)),
    Stage("comsem", "names and scores by rules (5.1, C, F.3, Figs. 24-28, 42, 43, Table 4)", comsem, ("compare",)),
    Stage("taskvec", "task vectors (5.4, Fig. 6)", taskvec, ("inputs", "compare")),
    Stage("steering", "steering with single features", steering, ("compare",)),
    Stage("codec", "compression (7, A.5, Table 3)", codec, ("compare",)),
    Stage("more-bit", "more bits a feature (6, Table 2)", more_bit, ("harvest",)),
)
"""In the order in which they are run."""


def _features(bench: Bench) -> Path:
    return bench.out / "activations" / "features"


def _limits(bench: Bench) -> dict[str, int]:
    return {name: value for name, value in bench.of("compare").items() if name in ("tokens", "held_out_tokens")}


def _transcoder_input(layer: int) -> str:
    return f"blocks.{layer - 1}.ln2.hook_normalized"


def _cells(bench: Bench, stage: str) -> dict[str, Any]:
    """A stage's settings, with where its trainings run."""
    return {"processes": bench.processes, "device": bench.on, **bench.of(stage)}


def _harvest(bench: Bench, out: Path, text: str, hooks: list[str], given: dict[str, Any]) -> None:
    dtype = DTYPES[given.pop("model_dtype", "fp32")]
    model = load_for_harvest(bench.model_name, hooks, device=bench.on, dtype=dtype)
    harvest_to_disk(model, text_source(text), hooks=hooks, out=out, say=bench.say, model_name=bench.model_name, **given)


def _task(bench: Bench) -> tuple[Path, Path | None]:
    """Files of queries and of demonstrations."""
    made = world_task(bench)
    if made is not None:
        return made / "queries.jsonl", made / "demonstrations.jsonl"
    if bench.task is None:
        raise NotGiven("no task was given (--task FILE, and --labels where its labels need names)")
    return bench.task, None


def _named_on(bench: Bench) -> Path:
    found = bench.held_out_text
    if found is None:
        raise NotGiven("no text to name features on was given (--evaluation-text FILE)")
    return found


def _check(failures: list[Failure]) -> None:
    if failures:
        raise RuntimeError(f"{len(failures)} cells failed, the first is {failures[0].name}: {failures[0].reason}")


def _quiet(line: str) -> None:
    """Says nothing: what the stage has to say is in its directory."""
