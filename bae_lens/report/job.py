"""The job `bae-lens report`: from an SAE and activations, or a model and its text, to one HTML file."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from sae_lens import SAE

import bae_lens
from bae_lens.activations.text import iterate_documents
from bae_lens.analyze.fidelity import Fidelity
from bae_lens.files import at_home, check_output_file, write_text
from bae_lens.model.bae import BinaryCode
from bae_lens.report.assemble import page_html
from bae_lens.report.collect import Collected, Shown, collect
from bae_lens.report.contexts import AROUND, RANDOM, TOP
from bae_lens.report.directions import check_map
from bae_lens.report.results import Named, read_compare, read_comsem, read_entropy, read_run
from bae_lens.report.source import Source, from_activations, from_text
from bae_lens.version import __version__


@dataclass(kw_only=True)
class ReportOptions:
    """What `bae-lens report` takes."""

    bae: str
    """Directory of a BAE or of any SAELens SAE, or RELEASE:SAE_ID."""
    out: Path = Path("report.html")
    activations: Path | None = None
    """Directory of activations; without it the model runs over a text."""
    model: str | None = None
    """By default the one that the activations, or the SAE, name."""
    text: Path | None = None
    """Without activations: what the model runs over. With them: what CE losses are measured on, where they do not say."""
    hook: str | None = None
    """Where the SAE names none."""
    comsem: Path | None = None
    compare: Path | None = None
    entropy: Path | None = None
    held_out: float = 0.15
    """Only the documents that `bae-lens train` leaves out at this share; 0: all."""
    tokens: int = 200_000
    features: int | Sequence[int] | None = None
    """These features, or so many; None: all."""
    top: int = TOP
    random: int = RANDOM
    around: int = AROUND
    map: str = "pca"
    seed: int = 0
    with_model: bool = True
    """False: nothing that needs the model is measured."""
    device: str = "cpu"

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"--held-out must be at least 0 and under 1, got {self.held_out}")
        for name, least in (("tokens", 2), ("top", 1), ("random", 0), ("around", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"--{name} must be at least {least}, got {getattr(self, name)}")
        if self.text is not None and not at_home(self.text).is_file():
            raise FileNotFoundError(f"there is no file {self.text}: --text takes a text file, a document a line")
        if self.activations is None and not self.with_model:
            raise ValueError("--without-model needs --activations: without these, the model is run to have some")
        check_map(self.map)


class About(NamedTuple):
    """What a report says besides what it measures."""

    path: str
    """From which `bae_lens.load_sae` loads the SAE again."""
    recipe: dict[str, Any] | None = None
    curves: dict[str, Any] | None = None
    comsem: dict[int, Named] | None = None
    compare: dict[str, Any] | None = None
    entropy: list[dict[str, Any]] | None = None


class Written(NamedTuple):
    """A report."""

    path: Path
    bytes: int
    seconds: float
    collected: Collected


class Embedded(NamedTuple):
    """The default where no text is given, for an SAE of the model that comes along."""

    model: Path
    """Its directory."""
    documents: Callable[[], Sequence[str]]


def run_report(options: ReportOptions, embedded: Embedded | None = None, say: Callable[[str], None] = print) -> Written:
    """Makes a report.

    Args:
        embedded: Text for SAEs of one model, where there are neither activations nor a file.

    Raises:
        FileNotFoundError: If an SAE, activations, a model or results of another job are not there.
        ValueError: If they do not belong together, or a file is not whole.
        FileExistsError, PermissionError: If the report cannot be written (before anything is computed).
    """
    check_output_file(options.out)
    sae = bae_lens.load_sae(options.bae, hook_name=options.hook, device=options.device)
    check_reportable(sae, options.bae)
    about = _about(options, sae)
    say(f"\n== Open {options.activations or 'a text'} at {sae.cfg.metadata.hook_name}")
    source = _source(options, sae, embedded)
    say(f"{len(source.vectors):,} vectors of {source.name}")
    if source.without:
        say(f"left out: {source.without}")
    shown = Shown(options.features, options.top, options.random, options.around, options.map, options.seed)
    return write_report(sae, source, about, options.out, shown, say)


def write_report(
    sae: SAE[Any],
    source: Source,
    about: About,
    out: str | Path,
    shown: Shown | None = None,
    say: Callable[[str], None] = print,
    *,
    ce: Fidelity | None = None,
    progress: bool = True,
) -> Written:
    """Measures, and writes the page, whole or not at all; what is there is replaced.

    Args:
        ce: CE losses, where they were measured before.

    Raises:
        TypeError, ValueError: If the vectors do not fit the SAE, or a BAE has no prior yet.
    """
    started = time.perf_counter()
    collected = collect(sae, source, shown, ce=ce, progress=progress)
    values = {**collected.values, **describe(sae, source, about)}
    html = page_html(values, collected.arrays)
    write_text(out, html)
    found = collected.overview
    say(
        f"FVU {found.fvu:.4f} at a marginal entropy of {found.entropy:.1f} bits a token; L0 {found.l0:.1f}, "
        f"{found.live} live, {found.dead} dead, {found.dense} dense"
    )
    seconds = time.perf_counter() - started
    say(f"Report of {len(collected.arrays['index'])} features, {len(html) / 1e6:.1f} MB, in {seconds:.0f} s: {out}")
    return Written(Path(out), len(html.encode()), seconds, collected)


def check_reportable(sae: SAE[Any], name: str) -> None:
    """Raises ValueError unless an SAE reconstructs what it reads, and a BAE has a prior."""
    architecture = sae.cfg.architecture()
    if getattr(sae.cfg, "d_out", sae.cfg.d_in) != sae.cfg.d_in or "transcoder" in architecture:
        raise ValueError(f"{name} is a {architecture}: a report is of SAEs that reconstruct what they read")
    if isinstance(sae, BinaryCode):
        sae.check_prior()


def describe(sae: SAE[Any], source: Source, about: About) -> dict[str, Any]:
    """What stands on the page besides measurements, as JSON values."""
    config = {name: value for name, value in sae.cfg.to_dict().items() if name != "metadata" and _is_plain(value)}
    return {
        "version": __version__,
        "model": source.model_name,
        "hook": str(sae.cfg.metadata.hook_name),
        "architecture": sae.cfg.architecture(),
        "kind": "bae" if isinstance(sae, BinaryCode) else "sae",
        "bitsPerFeature": sae.cfg.bits_per_feature if isinstance(sae, BinaryCode) else 0,
        "isNested": isinstance(sae, BinaryCode) and sae.is_nested,
        "config": config,
        "path": about.path,
        "recipe": about.recipe,
        "curves": about.curves,
        "comsem": {str(feature): named._asdict() for feature, named in about.comsem.items()} if about.comsem else None,
        "compare": about.compare,
        "entropy": about.entropy,
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | bool) or (isinstance(value, float) and value == value and abs(value) < float("inf"))


def _about(options: ReportOptions, sae: SAE[Any]) -> About:
    path = at_home(options.bae)
    run = read_run(path) if path.is_dir() else None
    return About(
        path=options.bae,
        recipe=run["recipe"] if run else None,
        curves=run["curves"] if run else None,
        comsem=read_comsem(options.comsem, sae.cfg.d_sae) if options.comsem else None,
        compare=read_compare(options.compare) if options.compare else None,
        entropy=read_entropy(options.entropy) if options.entropy else None,
    )


def _source(options: ReportOptions, sae: SAE[Any], embedded: Embedded | None) -> Source:
    if options.activations is not None:
        return from_activations(
            options.activations,
            sae,
            model=options.model,
            text=options.text,
            held_out=options.held_out,
            tokens=options.tokens,
            seed=options.seed,
            with_model=options.with_model,
            device=options.device,
        )
    name = options.model or sae.cfg.metadata.model_name
    if not name:
        raise ValueError(f"{options.bae} does not say which model it belongs to: give it (--model)")
    is_embedded = embedded is not None and at_home(name).resolve() == embedded.model.resolve()
    if options.text is None and not is_embedded:
        raise ValueError("give --activations, a directory of `bae-lens harvest`, or --text, for the model to run over")
    text = embedded.documents() if embedded is not None and options.text is None else iterate_documents(options.text or "")
    model = bae_lens.load_model(name, device=options.device)
    return from_text(
        model, text, sae, name=str(options.text or "the embedded corpus"), model_name=str(name), tokens=options.tokens
    )
