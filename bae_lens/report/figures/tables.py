"""The paper's four tables from one's own results: the same columns, FVU beside every one of them."""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tabulate import tabulate

from bae_lens.benchmark.codec_table import SizeRow
from bae_lens.benchmark.more_bit import Cell as MoreBitCell
from bae_lens.benchmark.more_bit import Measured
from bae_lens.compare.lines import Line
from bae_lens.report.figures.results import Compared, Named

Value = str | int | float | None

WORDS = {
    "bae": "BAE",
    "bae_bits": "BAE, rate_distortion",
    "bae_nested": "BAE, nested levels",
    "bae_paper": "BAE, the paper's recipe",
    "relu_paper": "ReLU SAE",
    "relu_paper_rescaled": "ReLU SAE Resc.",
    "topk_paper": "Top-k SAE",
    "gated_relu_paper": "Gated ReLU SAE",
    "transcoder": "TransCoder",
    "standard": "Standard SAE (SAELens)",
    "topk": "TopK SAE (SAELens)",
    "batchtopk": "BatchTopK SAE (SAELens)",
    "jumprelu": "JumpReLU SAE (SAELens)",
    "gated": "Gated SAE (SAELens)",
    "matryoshka": "Matryoshka SAE (SAELens)",
    "pca": "PCA",
}
"""What the methods of a comparison are called, in the paper's words where it has them."""
RESCALED = "relu_paper"
"""The SAE whose rescaled magnitudes have a row of their own ("ReLU SAE Resc.")."""


class Table(NamedTuple):
    """A table, whatever writes it."""

    name: str
    """Of its files, without ending."""
    title: str
    heads: list[str]
    rows: list[list[Value]]
    note: str

    def markdown(self) -> str:
        """As Markdown, with its title and note."""
        body = tabulate([[shown(value) for value in row] for row in self.rows], self.heads, "github", disable_numparse=True)
        return f"## {self.title}\n\n{body}\n\n{self.note}\n"

    def csv(self) -> str:
        """Every number as it is; empty where there is none."""
        file = io.StringIO()
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([self.heads, *self.rows])
        return file.getvalue()


def shown(value: Value) -> str:
    """A value as tables print it: four digits, whole numbers whole, nothing for None.

    >>> shown(0.123456), shown(5464), shown(None)
    ('0.1235', '5464', '')
    """
    return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def table_1(compared: Sequence[Compared], transcoders: Sequence[Compared], named: Sequence[Named]) -> Table:
    """Dictionaries side by side (section 5.3): L_r, Cov, activated features, and ComSem where it was run, a block a hook point.

    ComSem's results belong to a line by hook point and name: that of the method, as `bae-lens interpret --name` gives it.
    """
    rows: list[list[Value]] = []
    for one in compared:
        scored = {run.name: run for run in named if run.hook == one.hook}
        beside = [line for other in transcoders if other.hook == one.hook for line in other.lines]
        for line in (*one.lines, *beside):
            rows.append([one.hook, *_dictionary(line), *_comsem(scored.get(line.name))])
            if line.name == RESCALED and line.mean("resc_more_than_8") is not None:
                rescaled = [one.hook, WORDS[f"{RESCALED}_rescaled"], *_dictionary(line)[1:-1], line.mean("resc_more_than_8")]
                rows.append([*rescaled, *_comsem(scored.get(f"{RESCALED}_rescaled"))])
    heads = ["hook point", "model", "setting", "FVU", "L_r", "Cov, d' x d'", "Cov, d x d", "dense", "Act.", "FI", "score"]
    note = (
        "L_r: squared error, mean over held-out vectors and dimensions. Cov: spectral norm of the covariance of the decoder's "
        "rows, by both readings. dense: on for more than a tenth of the tokens. Act.: among the ten largest magnitudes of more "
        "than 8 of 8,192 tokens. FI, score: features with a ComSem score over 0, and the mean over those activated on its text."
    )
    return Table("table1", "Table 1: a BAE and other dictionaries", heads, rows, note)


def _dictionary(line: Line) -> list[Value]:
    cov = [found.cov for found in line.figures if found.cov is not None]
    norms = [sum(c.rows for c in cov) / len(cov), sum(c.columns for c in cov) / len(cov)] if cov else [None, None]
    figures = [line.mean("fvu"), line.mean("loss"), *norms, line.mean("dense"), line.mean("act_more_than_8")]
    return [WORDS.get(line.name, line.name), line.tuned, *figures]


def _comsem(run: Named | None) -> list[Value]:
    return [None, None] if run is None else [run.interpretable, run.score]


def table_2(found: Mapping[MoreBitCell, Measured]) -> Table:
    """More bits a feature (section 6): loss, activated features and ComSem against C."""
    rows: list[list[Value]] = []
    for cell, value in sorted(found.items(), key=lambda item: item[0]):
        width = "d'/C = 4d features" if cell.same == "features" else "d' = 4d bits"
        figures = [value.loss, value.fvu, value.entropy, value.activated, value.interpretable, value.score]
        rows.append([cell.code, width, cell.c, value.features, *figures])
    heads = ["code", "the same for all C", "C", "features", "L_r", "FVU", "H, bits", "Act.", "FI", "score"]
    note = "All held out. With C = 1 codes and widths are one, and stand once. FI and score: ComSem by rules."
    return Table("table2", "Table 2: more-bit decoding", heads, rows, note)


def table_3(sizes: Sequence[SizeRow]) -> Table:
    """Compression (section 7, A.5): bytes a vector and what is kept, by every way to store."""
    rows: list[list[Value]] = []
    for row in sizes:
        rows.append([row.dictionary, row.how, row.bytes, row.model_bytes, row.fvu, row.mse, row.cosine])
    heads = ["dictionary", "stored as", "bytes a vector", "bytes of the model", "FVU", "MSE", "cosine"]
    note = (
        'Bytes of a held-out vector without the model. The paper\'s way is "index, 16 bits"; its memory counts the model too.'
    )
    return Table("table3", "Table 3: compression", heads, rows, note)


def table_4(named: Sequence[Named]) -> Table:
    """Each dictionary's ComSem, and the BAEs' best features alone, as many as another dictionary has (appendix C).

    Raises:
        ValueError: If nothing was scored.
    """
    rows: list[list[Value]] = []
    for hook in dict.fromkeys(run.hook for run in named):
        here = [run for run in named if run.hook == hook and run.scores]
        for run in here:
            rows.append([hook, WORDS.get(run.name, run.name), run.activated, run.interpretable, run.score])
        most = max((len(run.scores) for run in here if not run.is_bae), default=None)
        for run in here:
            if run.is_bae and most is not None and most < len(run.scores):
                best = sorted(run.scores, reverse=True)[:most]
                over = sum(score > 0 for score in best)
                rows.append([hook, f"{WORDS.get(run.name, run.name)} (top {most})", most, over, sum(best) / most])
    if not rows:
        raise ValueError("ComSem has scored no feature")
    note = "top n: the n features of highest score, as many as the other dictionary of most features has."
    return Table("table4", "Table 4: BAEs without their low scores", ["hook point", "model", "Act.", "FI", "score"], rows, note)
