"""The report of `bae-lens demo`, of what that job has in memory already: nothing is run again."""

from pathlib import Path

from bae_lens.activations.shards import Places
from bae_lens.compare.data import CE_TOKENS, first_windows
from bae_lens.demo.job import Made
from bae_lens.report.job import About, write_report
from bae_lens.report.results import curves_of
from bae_lens.report.source import Source


def report_demo(out: Path, made: Made) -> None:
    """Writes the report of a demo's BAE over the held-out text."""
    windows, found = made.data.held_out_windows, made.data.held_out
    places = Places(windows.tokens[found.window, found.position], windows.document[found.window], found.position)
    source = Source(
        vectors=found.vectors,
        places=places,
        tokenizer=made.model.tokenizer,
        model=made.model,
        windows=first_windows(windows, CE_TOKENS),
        without="",
        name=f"{made.text_name}, held-out documents",
        model_name=made.model_name,
    )
    curves = curves_of([{"split": "train", **row._asdict()} for row in made.trained.history])
    about = About(made.path, made.recipe.to_dict(), curves)
    write_report(made.trained.bae, source, about, out, ce=made.fidelity, say=lambda line: None)
