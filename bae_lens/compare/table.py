"""A comparison as Markdown and CSV: what was kept and paid, what the features are like, Cov, bits at FVUs, and the tries."""

import csv
import io
import statistics
from collections.abc import Sequence
from typing import Any

import torch
from tabulate import tabulate

from bae_lens.analyze.curves import mean_and_range
from bae_lens.compare.decoder import DecoderCovariance
from bae_lens.compare.evaluate import Figures
from bae_lens.compare.lines import BitsAt, Line
from bae_lens.compare.search import Try

OUTSIDE = "outside"
NOTE = """\
Everything is held out; mean over seeds [least, most]. FVU, L_r (squared error, mean over vectors and dimensions), cosine and
CE recovered are of reconstructions with magnitudes as they are. CE recovered: the share of the damage of zero- and of
mean-ablation, in CE loss, that the splice does not do. bits/token: code length under frequencies counted on training vectors;
of SAEs, which features fire and their quantised, entropy-coded magnitudes; the FVU of just that code stands beside it.
refined: of SAEs, whole steps refined in rate and distortion when they encode, as a rate_distortion BAE's codes are; seed 0.
live, dead (never change), stuck (dead and always on), dense (on for more than a tenth of the tokens): of bits where a code is
plain bits, else of features.
Act.: features that are among the 10 largest magnitudes on more than 8, on at least 6, of the first 8,192 tokens; Resc.: of
magnitudes with mean 0 and deviation 1 a channel. stability: mean over live features of the largest cosine with a decoder row of
another seed. Cov: spectral norm of the covariance of the decoder's rows as variables (d' x d') and of its columns (d x d).
"""


def tables(lines: Sequence[Line]) -> str:
    """All tables, each under a heading."""
    parts = [
        ("What is kept, and what it costs", code_table(lines)),
        ("What the features are like", feature_table(lines)),
        ("Covariance of the decoder's rows", covariance_table(lines)),
    ]
    if any(line.at for line in lines):
        parts.append(("Bits a token at an FVU", at_table(lines)))
    if any(line.tries for line in lines):
        parts.append(("What was tried", tries_table(lines)))
    return "\n\n".join(f"## {title}\n\n{table}" for title, table in parts) + f"\n\n{NOTE}"


def code_table(lines: Sequence[Line]) -> str:
    """FVU, L_r, cosine, CE recovered, bits a token."""
    return _table(
        {
            **_place(line),
            "setting": line.tuned,
            "FVU": _cell(line, "fvu", ".4f"),
            "L_r": _cell(line, "loss", ".4g"),
            "cosine": _cell(line, "cosine", ".4f"),
            "CE recovered (zero)": _cell(line, "ce_from_zero", ".4f"),
            "(mean)": _cell(line, "ce_from_mean", ".4f"),
            "bits/token": _cell(line, "bits", ".1f"),
            "at FVU": _cell(line, "bits_fvu", ".4f"),
            "refined": _first(line, "refined_bits", ".1f"),
            "at FVU ": _first(line, "refined_fvu", ".4f"),
        }
        for line in lines
    )


def feature_table(lines: Sequence[Line]) -> str:
    """L0, live, dead, stuck, dense, Act., Resc., stability, training time."""
    return _table(
        {
            **_place(line),
            "L0": _cell(line, "l0", ".1f"),
            "live": _cell(line, "live", ".0f"),
            "dead": _cell(line, "dead", ".0f"),
            "stuck": _cell(line, "stuck", ".0f"),
            "dense": _cell(line, "dense", ".0f"),
            "Act. > 8": _cell(line, "act_more_than_8", ".0f"),
            ">= 6": _cell(line, "act_at_least_6", ".0f"),
            "Resc. > 8": _cell(line, "resc_more_than_8", ".0f"),
            ">= 6 ": _cell(line, "resc_at_least_6", ".0f"),
            "stability": "" if line.stability is None else f"{line.stability:.3f}",
            "training, CPU s": mean_and_range(line.seconds, ".0f") if line.seconds else "",
        }
        for line in lines
        if line.frequency is not None
    )


def covariance_table(lines: Sequence[Line]) -> str:
    """The four readings of Cov."""
    return _table(
        {
            **_place(line),
            "d' x d'": _covariance(line, "rows"),
            "d x d": _covariance(line, "columns"),
            "d' x d', unit rows": _covariance(line, "rows_unit"),
            "d x d, unit rows": _covariance(line, "columns_unit"),
        }
        for line in lines
        if line.frequency is not None
    )


def at_table(lines: Sequence[Line]) -> str:
    """Bits at each FVU, and with refined codes."""
    rows = []
    for line in lines:
        row: dict[str, str] = _place(line)
        for at in line.at:
            row[f"bits at FVU {at.fvu:g}"] = describe_bits(at)
            row[f"refined, {at.fvu:g}"] = "" if at.refined is None else f"{at.refined:.1f}"
        rows.append(row)
    return _table(rows)


def tries_table(lines: Sequence[Line]) -> str:
    """Each setting that was tried, with its FVU."""
    return _table(
        {
            **_place(line),
            "tries": len(line.tries),
            "setting: FVU": ", ".join(f"{one.setting:g}: {one.fvu:.3f}" for one in line.tries),
        }
        for line in lines
    )


def describe_bits(at: BitsAt) -> str:
    """Mean and range of the seeds."""
    found = [bits for bits in at.bits if bits is not None]
    return mean_and_range(found, ".1f") if found else OUTSIDE


def csv_table(lines: Sequence[Line]) -> str:
    """A row a line and seed, every figure; empty where there is none."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    plain = [name for name in Figures._fields if name != "cov"]
    cov = [f"cov_{name}" for name in DecoderCovariance._fields]
    writer.writerow(["method", "width", "setting", "seed", *plain, *cov, "stability", "cpu_seconds"])
    for line in lines:
        for seed, found in enumerate(line.figures):
            values = [getattr(found, name) for name in plain]
            covariances = list(found.cov) if found.cov else [None] * len(cov)
            taken = line.seconds[seed] if line.seconds else None
            writer.writerow([line.name, line.width, line.tuned, seed, *values, *covariances, line.stability, taken])
    return file.getvalue()


def line_as_json(line: Line) -> dict[str, Any]:
    """Every figure of a line, as JSON values."""
    return {
        "method": line.name,
        "width": line.width,
        "family": line.family,
        "setting": line.tuned,
        "figures": [found.to_dict() for found in line.figures],
        "stability": line.stability,
        "cpu_seconds": line.seconds,
        "tries": [one._asdict() for one in line.tries],
        "bits_at": [at._asdict() for at in line.at],
        "points": line.points,
        "refined_points": line.refined_points,
        "frequency": None if line.frequency is None else [round(value, 7) for value in line.frequency.tolist()],
    }


def line_from_json(value: dict[str, Any]) -> Line:
    """Back from `line_as_json`; which SAE is kept is not in it.

    Raises:
        KeyError, TypeError: If that is not what it is.
    """
    frequency = value["frequency"]
    return Line(
        name=value["method"],
        width=value["width"],
        family=value["family"],
        tuned=value["setting"],
        figures=[Figures.from_dict(found) for found in value["figures"]],
        frequency=None if frequency is None else torch.tensor(frequency, dtype=torch.float64),
        stability=value["stability"],
        seconds=value["cpu_seconds"],
        tries=tuple(Try(**one) for one in value["tries"]),
        points=tuple((fvu, bits) for fvu, bits in value["points"]),
        refined_points=tuple((fvu, bits) for fvu, bits in value["refined_points"]),
        at=tuple(BitsAt(**at) for at in value["bits_at"]),
    )


def _table(rows: Any) -> str:
    return tabulate(list(rows), headers="keys", tablefmt="github", disable_numparse=True)


def _place(line: Line) -> dict[str, str]:
    return {"method": line.name, "width": line.width}


def _cell(line: Line, name: str, form: str) -> str:
    values = [getattr(found, name) for found in line.figures]
    return "" if any(value is None for value in values) else mean_and_range(values, form)


def _first(line: Line, name: str, form: str) -> str:
    value = getattr(line.figures[0], name)
    return "" if value is None else format(value, form)


def _covariance(line: Line, name: str) -> str:
    values = [getattr(found.cov, name) for found in line.figures if found.cov is not None]
    return f"{statistics.fmean(values):.3g}" if values else ""
