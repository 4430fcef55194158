"""The job of `bae-lens interpret`: from a model, an SAE and a text to named and scored features in a directory."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bae_lens
from bae_lens.activations.harvest import Activations
from bae_lens.comsem.backends.openai_backend import OpenAIBackend, check_url
from bae_lens.comsem.backends.protocol import Backend
from bae_lens.comsem.backends.rules import RulesBackend
from bae_lens.comsem.estimate import Estimate, estimate
from bae_lens.comsem.ledger import PRICES, Price, check_priced, read_price, read_prices
from bae_lens.comsem.projection import dispersion, extremes, maps_chart, sample_points, umap_maps
from bae_lens.comsem.results import JOURNAL, MAPS, describe, write_results
from bae_lens.comsem.retry import Retries
from bae_lens.comsem.runner import Results, RunOptions, interpret
from bae_lens.comsem.sentences import sentence_windows
from bae_lens.comsem.study import Study, StudyOptions, prepare
from bae_lens.files import check_output_directory, check_writable, write_bytes, write_json
from bae_lens.pictures.static import chart_png

CONTEXT_SIZE = 256
PAPER_K, PAPER_FEATURES = 10, 8192
CROWDED = 4
"""From so many times the paper's share of features a token on, a run says so."""


@dataclass(kw_only=True)
class InterpretOptions:
    """What `bae-lens interpret` takes; the command's help says what each is."""

    bae: str
    model: str
    text: Path | None = None
    hook: str | None = None
    out: Path = Path("runs/comsem")
    dry_run: bool = False
    backend: str = "rules"
    llm: str = ""
    judge_backend: str | None = None
    judge_llm: str | None = None
    api_key_variable: str | None = None
    budget: float | None = None
    prices: Path | None = None
    price: list[str] | None = None
    concurrency: int = 16
    requests_a_minute: float | None = None
    tokens_a_minute: float | None = None
    timeout: float = 120
    tries: int = 8
    sentences: int | None = 8192
    tokens: int | None = None
    n_interpret: int = 5
    n_test: int = 8
    least: int | None = None
    k: int = 10
    magnitude: str = "auto"
    prior: str = "evaluation"
    keep: str = "first"
    keep_usual: bool = False
    features: tuple[int, ...] | None = None
    seed: int = 0
    device: str = "cpu"
    scores: list[str] | None = None
    at_a_time: int = 1
    shuffled: int = 8
    control: int = 32
    calibrate: bool = False
    umap: bool = False
    name: str = "BAE"


def run_interpret(
    options: InterpretOptions, documents: Callable[[], list[str]] | None = None, say: Callable[[str], None] = print
) -> Results | Estimate:
    """Runs the job; of a dry run returns the estimate.

    Args:
        documents: Gives the text, where it is not in a file.

    Raises:
        ValueError, FileNotFoundError, PermissionError: For anything that is wrong with the input, before the model is loaded.
    """
    run_options, backends = _checked(options)
    if documents is None and options.text is None:
        raise ValueError("no text: give a file (--text)")
    text = documents() if options.text is None and documents is not None else bae_lens.read_documents(options.text or "")
    say(f"\n== Load {options.model} and {options.bae}")
    model = bae_lens.load_model(options.model, device=options.device)
    sae = bae_lens.load_sae(options.bae, hook_name=options.hook, device=options.device)
    windows = sentence_windows(
        model.tokenizer, text, min(CONTEXT_SIZE, model.cfg.n_ctx), sentences=options.sentences, tokens=options.tokens
    )
    activations = bae_lens.harvest(model, windows, sae.cfg.metadata.hook_name)
    say(f"\n== Collect the samples of each feature, of {len(activations.vectors)} tokens at {sae.cfg.metadata.hook_name}")
    study = prepare(sae, activations, windows, model.tokenizer, _study_options(options))
    say(f"{len(study.features)} of {sae.cfg.d_sae} features activated; {study.counts['usual']} entries at their usual value")
    if crowded := crowding(options.k, sae.cfg.d_sae):
        say(crowded)
    if options.dry_run:
        names = [_model_name(*which) for which in _who(options)]
        expected = estimate(study, names[0], names[1], run_options)
        say(describe_estimate(expected))
        return expected
    makers: dict[tuple[str, str], Backend] = {**backends}
    for which in _who(options):
        if which not in makers:
            makers[which] = RulesBackend(study.background)
    say("\n== Name and judge")
    interpreter, judge = (makers[which] for which in _who(options))
    results = interpret(study, interpreter, judge, journal=options.out / JOURNAL, options=run_options)
    spread = {feature.feature: dispersion(sample_points(activations, feature)) for feature in study.features}
    written = write_results(results, study, options.out, name=options.name, dispersions=spread)
    if options.umap:
        written += _draw_maps(results, study, activations, options.out, say)
    say(f"\n{describe(results, study)}\n\nSaved to {options.out}: {', '.join(path.name for path in written)}")
    return results


def crowding(k: int, features: int) -> str | None:
    """What to say of a k that is a far larger share of the features than the paper's 10 of 8,192; None where it is not.

    >>> crowding(10, 8192) is None, crowding(1, 512) is None
    (True, True)
    """
    fair = max(1, round(PAPER_K * features / PAPER_FEATURES))
    if k < CROWDED * fair:
        return None
    return (
        f"k = {k} of {features} features count as activated on a token; the paper's share (10 of 8,192) would be {fair}. "
        f"Features that say little of a token come in with the others, and scores fall: see --k {fair}"
    )


def describe_estimate(expected: Estimate) -> str:
    """An estimate in words."""
    lines = ["", "Dry run: nothing was sent. Expected, without retries and repairs:"]
    for model, usage in expected.by_model.items():
        cost = "price unknown (give --price)" if usage.cost is None else f"${usage.cost:.2f}"
        lines.append(f"  {model}: {usage.requests} requests, {usage.prompt_tokens} + {usage.completion_tokens} tokens, {cost}")
    return "\n".join(lines)


def _who(options: InterpretOptions) -> list[tuple[str, str]]:
    """(backend, model) of who names and who judges."""
    judge_backend = options.judge_backend or options.backend
    judge_llm = options.judge_llm or (options.llm if judge_backend == options.backend else "")
    return [(options.backend, options.llm), (judge_backend, judge_llm)]


def _model_name(backend: str, llm: str) -> str:
    return "rules" if backend == "rules" else llm


def _checked(options: InterpretOptions) -> tuple[RunOptions, dict[tuple[str, str], Backend]]:
    """Options of the run, and the backends that need no text to be made; refuses what cannot work."""
    prices = _prices(options)
    for backend, llm in _who(options):
        if backend not in ("rules", "openai"):
            if "://" not in backend:
                raise ValueError(f'{backend!r} is no backend: "openai", "rules", or an address (http://localhost:8000/v1)')
            check_url(backend)
        if backend != "rules" and not llm:
            raise ValueError(f"{backend} has many models: give a name (--llm, --judge-llm)")
    check_priced({_model_name(*who): who[0] != "rules" for who in _who(options)}, {**PRICES, **prices}, options.budget)
    run_options = RunOptions(
        at_a_time=options.at_a_time,
        shuffled=options.shuffled,
        scores=tuple(options.scores or ()),
        calibrate=options.calibrate,
        concurrency=options.concurrency,
        requests_a_minute=options.requests_a_minute,
        tokens_a_minute=options.tokens_a_minute,
        retries=Retries(most=options.tries),
        budget=options.budget,
        prices=prices,
    )
    if options.dry_run:
        return run_options, {}
    backends: dict[tuple[str, str], Backend] = {
        who: OpenAIBackend(
            who[1],
            None if who[0] == "openai" else who[0],
            key_variable=options.api_key_variable,
            timeout=options.timeout,
            connections=options.concurrency,
        )
        for who in _who(options)
        if who[0] != "rules"
    }
    if (options.out / JOURNAL).is_file():
        check_writable(options.out)
    else:
        check_output_directory(options.out)
    return run_options, backends


def _prices(options: InterpretOptions) -> dict[str, Price]:
    table = read_prices(options.prices) if options.prices else {}
    return {**table, **dict(map(read_price, options.price or []))}


def _study_options(options: InterpretOptions) -> StudyOptions:
    return StudyOptions(
        k=options.k,
        interpret=options.n_interpret,
        test=options.n_test,
        least=options.least,
        magnitude=options.magnitude,
        prior=options.prior,
        keep=options.keep,
        keep_usual=options.keep_usual,
        control=options.control,
        sentences=bool(options.scores),
        features=options.features,
        seed=options.seed,
    )


def _draw_maps(results: Results, study: Study, activations: Activations, out: Path, say: Callable[[str], None]) -> list[Path]:
    """UMAP of the best and the worst features; says why, where there is none."""
    of = {feature.feature: feature for feature in study.features}
    chosen: list[tuple[str, Any]] = [
        (f"#{r.feature}, score {r.comsem.score:.2g}: {r.phrase}", sample_points(activations, of[r.feature]))
        for r in extremes(results.features)
    ]
    try:
        maps = umap_maps(chosen)
    except (ImportError, ValueError) as error:
        say(f"no maps: {error}")
        return []
    write_json(out / MAPS, [one._asdict() for one in maps])
    write_bytes(out / "umap.png", chart_png(maps_chart(maps)))
    return [out / "umap.png", out / MAPS]
