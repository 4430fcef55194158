"""The job of `bae-lens steer`: loads, measures a cell a feature, reports; a killed job goes on with the features that lack."""

from dataclasses import dataclass
from pathlib import Path

import bae_lens
from bae_lens.cells import CellDirectory
from bae_lens.demo import demo_model_dir
from bae_lens.intervene.suffix import suffix_of
from bae_lens.sweeps.steering import SteeringSweep, measure_steering
from bae_lens.sweeps.steering_report import FILES, Sources, as_json, from_json, snippet, write_report
from bae_lens.sweeps.texts import text_windows


@dataclass(kw_only=True)
class SteerOptions:
    """What `bae-lens steer` takes."""

    bae: str
    """Directory of a BAE or of any SAELens SAE, or RELEASE:SAE_ID."""
    features: list[int]
    strengths: list[float]
    prompts: Path
    """Text file: tokens are chosen on every second window of it, and measured on the others."""
    model: str | None = None
    """Model directory or name; the embedded tiny Llama if not given."""
    text: Path | None = None
    """Unrelated text for the cost; the embedded corpus's held-out part if not given."""
    target: list[str] | None = None
    top: int = 10
    random: int = 3
    windows: int = 64
    """Of prompts and of text, at most."""
    context: int = 64
    """Tokens a window."""
    hook: str | None = None
    seed: int = 0
    out: Path = Path("runs/steer")
    device: str = "cpu"


def run_steering(options: SteerOptions) -> tuple[list[SteeringSweep], str, tuple[str, ...]]:
    """Measures every feature that was asked for; the sweeps, the notebook lines, and the names of the files in `options.out`.

    Raises:
        ValueError, IndexError, FileNotFoundError: Where an input is not there or does not fit (see `measure_steering`).
        FileExistsError: If `options.out` holds something else.
    """
    model = bae_lens.load_model(options.model or demo_model_dir(), device=options.device)
    sae = bae_lens.load_sae(options.bae, hook_name=options.hook, device=options.device)
    hook_name = suffix_of(model, sae, options.hook).hook_name
    prompts, text = (text_windows(model, path, options.windows, options.context) for path in (options.prompts, options.text))
    cells = CellDirectory.open(options.out, "steering", _settings(options))
    sweeps = []
    for feature in options.features:
        found = cells.read(f"feature{feature}")
        if found is None:
            sweep = measure_steering(
                model,
                sae,
                feature,
                strengths=options.strengths,
                prompts=prompts,
                text=text,
                targets=options.target,
                top=options.top,
                random=options.random,
                seed=options.seed,
                hook_name=hook_name,
            )
            cells.write(f"feature{feature}", as_json(sweep))
        else:
            sweep = from_json(found)
        sweeps.append(sweep)
    sources = Sources(
        options.model or str(demo_model_dir()),
        str(options.bae),
        str(options.prompts),
        None if options.text is None else str(options.text),
        options.windows,
        options.context,
        hook_name,
    )
    notebook = snippet(sources, sweeps[0], targets=options.target, top=options.top, seed=options.seed)
    write_report(options.out, sweeps, notebook)
    return sweeps, notebook, FILES


def _settings(options: SteerOptions) -> dict[str, str | int | float | list[float] | list[str] | None]:
    """What all cells share: everything but which features, and where things run and are kept."""
    shared = {name: value for name, value in vars(options).items() if name not in ("features", "out", "device")}
    return {name: str(value) if isinstance(value, Path) else value for name, value in shared.items()}
