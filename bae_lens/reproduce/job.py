"""The job of `bae-lens reproduce`: its stages in order, each once; then the figures, and what became of the paper's claims."""

import time
from collections.abc import Sequence
from typing import NamedTuple

from bae_lens.cells import CellDirectory
from bae_lens.checks import check_known
from bae_lens.report.figures.gallery import draw_figures
from bae_lens.report.figures.results import find_results
from bae_lens.reproduce.bench import Bench
from bae_lens.reproduce.claims import Verdict, describe, judge, read_claims, write_claims
from bae_lens.reproduce.stages import STAGES, NotGiven, Stage

MADE_BY = {
    "synthetic": "synthetic",
    "trace by position": "entropy",
    "trace by shots": "icl",
    "two tokens": "two-tokens",
    "compare": "compare",
    "comsem": "comsem",
    "task vectors": "taskvec",
    "codec table": "codec",
    "more-bit": "more-bit",
}
"""Which stage makes the results of a kind."""


class Done(NamedTuple):
    """What became of a stage."""

    stage: Stage
    seconds: float | None
    """By the clock, when it was run; None where it was not."""
    reason: str
    """Why it came to nothing; "" where it did not."""
    is_failure: bool = False
    """Whether that is an error, and not something that nobody gave."""


class Reproduced(NamedTuple):
    """What the job came to."""

    done: list[Done]
    verdicts: list[Verdict]


def run_reproduce(bench: Bench, only: Sequence[str] | None = None) -> Reproduced:
    """Runs the stages that are not done yet, draws what there is, and judges the claims.

    A stage that fails stops no other; it is tried again when the same is run again. Ctrl-C keeps what is done.

    Args:
        only: Names of stages; what they need has to be done already.

    Raises:
        ValueError: If there is no such stage, or the directory holds a job of other settings (each that differs is named).
        FileExistsError, PermissionError: If the directory holds something else, or cannot be written.
    """
    stages = chosen_stages(only)
    directory = CellDirectory.open(bench.out, "reproduce", bench.chosen())
    done: list[Done] = []
    for number, stage in enumerate(stages, 1):
        bench.say(f"\n== [{number}/{len(stages)}] {stage.name}: {stage.what}")
        done.append(_run(bench, directory, stage))
    bench.say("\n== Figures")
    draw_figures(bench.out, bench.out / "figures", bench.say)
    results: dict[str, list] = {}
    for found in find_results(bench.out):
        results.setdefault(found.kind, []).append(found)
    reasons = {one.stage.name: one.reason for one in done if one.reason}
    missing = {kind: reasons[stage] for kind, stage in MADE_BY.items() if stage in reasons}
    verdicts = judge(read_claims(), results, missing)
    write_claims(bench.out, verdicts, about(bench, directory))
    bench.say(f"\n== Claims\n\n{describe(verdicts)}")
    return Reproduced(done, verdicts)


def chosen_stages(only: Sequence[str] | None) -> list[Stage]:
    """All stages, or those of these names in their order.

    Raises:
        ValueError: If there is no such stage (near names are said).
    """
    names = [stage.name for stage in STAGES]
    for name in only or ():
        check_known("stage", name, names)
    return [stage for stage in STAGES if not only or stage.name in only]


def about(bench: Bench, directory: CellDirectory) -> str:
    """What was run, in a sentence or two."""
    times = {name: (directory.read(name) or {}).get("seconds", 0.0) for name in directory.names()}
    chosen = bench.chosen()
    text = chosen["text"] or "the embedded corpus"
    return (
        f"`bae-lens reproduce --size {bench.size}`: {bench.settings['about']}. Model: {chosen['model']}; text: {text}. "
        f"{len(times)} stages in {sum(times.values()) / 60:.0f} minutes. ComSem's names and scores are those of rules, not of "
        "a language model. Whether a claim holds here says nothing of the models that the paper measured."
    )


def plan(bench: Bench, only: Sequence[str] | None = None) -> str:
    """What would be run, stage by stage with its settings."""
    lines = [
        f"{bench.settings['about']}",
        f"model {bench.model_name}, device {bench.on}, layers of features {bench.every_layer}",
    ]
    for stage in chosen_stages(only):
        settings = ", ".join(f"{name} = {value}" for name, value in bench.of(stage.name).items())
        lines.append(f"{stage.name}: {stage.what}" + (f"\n    {settings}" if settings else ""))
    return "\n".join(lines)


def _run(bench: Bench, directory: CellDirectory, stage: Stage) -> Done:
    cell = directory.read(stage.name)
    if cell is not None:
        bench.say(f"done already, in {cell['seconds']:.0f} s")
        return Done(stage, cell["seconds"], "")
    lacking = [name for name in stage.needs if directory.read(name) is None]
    if lacking:
        return _left_out(bench, stage, f"needs the stage {lacking[0]!r}, which is not done", False)
    started, cpu = time.perf_counter(), time.process_time()
    try:
        stage.run(bench)
    except NotGiven as error:
        return _left_out(bench, stage, str(error), False)
    except Exception as error:  # whatever it is, it is this stage's alone
        return _left_out(bench, stage, f"{type(error).__name__}: {error}", True)
    seconds = time.perf_counter() - started
    directory.write(stage.name, {"seconds": seconds, "cpu_seconds": time.process_time() - cpu})
    bench.say(f"done in {seconds:.0f} s")
    return Done(stage, seconds, "")


def _left_out(bench: Bench, stage: Stage, reason: str, is_failure: bool) -> Done:
    bench.say(f"{'failed, and the others go on' if is_failure else 'left out'}: {reason}")
    return Done(stage, None, f"the stage {stage.name!r} {'failed' if is_failure else 'was left out'}: {reason}", is_failure)
