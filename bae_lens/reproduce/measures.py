"""What each claim is measured by: functions from the results of the job to one number, named in claims.toml."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from scipy.stats import mannwhitneyu, spearmanr

from bae_lens.compare.lines import Line
from bae_lens.report.figures.entries import Results
from bae_lens.report.figures.results import (
    Named,
    read_bits,
    read_cells,
    read_compared,
    read_named,
    read_shares,
    read_sweep,
    read_table,
    read_trace,
)
from bae_lens.sweeps.task_report import is_control, short_names
from bae_lens.traces.rows import Row

FVU = 0.01
"""Of synthetic sets: what is explained of them."""
PAPERS = ("relu_paper", "topk_paper", "gated_relu_paper")
FEWEST = 8
"""Features in either quarter, for a comparison of the two."""


class NotTestable(ValueError):
    """The results say nothing of a claim, and why."""


class Measured(NamedTuple):
    """A number, and in words what it is made of."""

    value: float
    words: str


def share_of_ranks_found(results: Results) -> Measured:
    """Sets whose entropy was found, of those that were trained on with the entropy loss by our recipe."""
    cells = [cell for found in results["synthetic"] for cell in read_cells(found) if cell.cell.entropy and cell.cell.r > 0]
    ours = [cell for cell in cells if cell.cell.recipe == "synthetic"] or cells
    if not ours:
        raise NotTestable("no set was trained on with the entropy loss")
    hits = [abs(c.found.entropy - c.cell.r) <= max(0.05 * c.cell.r, 0.1) and c.found.fvu < FVU for c in ours]
    found = ", ".join(f"{c.found.entropy:.2f} at r = {c.cell.r} (FVU {c.found.fvu:.2g})" for c in ours[:6])
    return Measured(sum(hits) / len(hits), f"{sum(hits)} of {len(hits)} sets, recipe {ours[0].cell.recipe}: H {found}")


def entropy_without_over_with(results: Results) -> Measured:
    """Pairs of trainings that differ in the entropy loss alone."""
    cells = {cell.cell: cell.found for found in results["synthetic"] for cell in read_cells(found) if cell.cell.r > 0}
    pairs = [
        (found, cells[cell._replace(entropy=False)])
        for cell, found in cells.items()
        if cell.entropy and cell._replace(entropy=False) in cells
    ]
    if not pairs:
        raise NotTestable("no set was trained on both with and without the entropy loss")
    ratios = [without.entropy / max(on.entropy, 1e-9) for on, without in pairs]
    fvu = max(without.fvu for _, without in pairs)
    return Measured(statistics.median(ratios), f"{min(ratios):.2g} to {max(ratios):.2g} times; FVU without at most {fvu:.2g}")


def share_of_saturating_layers(results: Results) -> Measured:
    """Layers after the embeddings, by the BAEs of their cells."""
    layers = _layers(results)
    shown, hits = [], 0
    for hook, rows in layers.items():
        values = [row.figures["entropy"] for row in rows]
        if len(values) < 3:
            raise NotTestable(f"{hook} was traced at {len(values)} positions: three are needed")
        hits += values[-1] > values[0] and abs(values[-1] - values[-2]) <= 0.1 * max(values)
        fvus = [row.figures["fvu"] for row in rows]
        shown.append(
            f"{hook} {values[0]:.0f}, {values[-2]:.0f}, {values[-1]:.0f} (FVU {fvus[0]:.2f}, {fvus[-2]:.2f}, {fvus[-1]:.2f})"
        )
    return Measured(hits / len(layers), f"bits at the first, last but one and last position: {'; '.join(shown)}")


def depth_correlation(results: Results) -> Measured:
    """Entropy at the last position against depth."""
    rows = [rows[-1] for rows in _layers(results).values()]
    if len(rows) < 3:
        raise NotTestable(f"{len(rows)} layers after the embeddings are too few for a rank correlation")
    shown = ", ".join(f"{r.place['hook']} {r.figures['entropy']:.0f} (FVU {r.figures['fvu']:.2f})" for r in rows)
    return Measured(_rank([row.depth for row in rows], [row.figures["entropy"] for row in rows]), shown)


def shot_correlation(results: Results) -> Measured:
    """Entropy against demonstrations, where the model does the task with them."""
    found = results["trace by shots"][0]
    accuracies = read_shares(found)
    last = accuracies[-1]
    said = ", ".join(f"{a.accuracy:.2f} at {a.shots}" for a in accuracies)
    if len(accuracies) < 3 or last.low <= max(last.majority, accuracies[0].accuracy):
        raise NotTestable(f"the model does not do the task with demonstrations: accuracy {said}")
    layers: dict[str, list[Row]] = {}
    for row in sorted(read_trace(found), key=lambda row: row.place["shots"]):
        if row.depth > 0:
            layers.setdefault(row.place["hook"], []).append(row)
    ranks = [_rank([r.place["shots"] for r in rows], [r.figures["entropy"] for r in rows]) for rows in layers.values()]
    deepest = list(layers.values())[-1]
    bits = ", ".join(f"{r.figures['entropy']:.0f} (FVU {r.figures['fvu']:.2f})" for r in deepest)
    return Measured(statistics.fmean(ranks), f"accuracy {said}; bits at {deepest[0].place['hook']} {bits}")


def dense_share(results: Results) -> Measured:
    """Of the best BAE of each hook point's comparison, the worst hook point."""
    worst, shown = 0.0, []
    for bae, others in _sides(results):
        share = (bae.mean("dense") or 0) / max(1.0, bae.mean("live") or 0)
        worst = max(worst, share)
        beside = ", ".join(f"{line.name} {line.mean('dense'):.0f}" for line in others)
        shown.append(f"{bae.name} {bae.mean('dense'):.0f} of {bae.mean('live'):.0f} live, FVU {bae.mean('fvu'):.3f}; {beside}")
    return Measured(worst, "; ".join(shown))


def activated_ratio(results: Results) -> Measured:
    """Activated features of the BAE over those of the best other."""
    ratios, shown = [], []
    for bae, others in _sides(results):
        best = max(others, key=lambda line: line.mean("act_more_than_8") or 0)
        mine, theirs = bae.mean("act_more_than_8") or 0, best.mean("act_more_than_8") or 0
        ratios.append(mine / max(theirs, 1))
        shown.append(
            f"{bae.name} {mine:.0f} (FVU {bae.mean('fvu'):.3f}), {best.name} {theirs:.0f} (FVU {best.mean('fvu'):.3f})"
        )
    return Measured(min(ratios), "; ".join(shown))


def loss_ratio(results: Results) -> Measured:
    """L_r of the BAE over the median of the paper's baselines."""
    ratios, shown = [], []
    for bae, others in _sides(results):
        losses = {line.name: line.mean("loss") or 0.0 for line in others if line.name in PAPERS}
        if not losses:
            raise NotTestable("none of the paper's own dictionaries was compared")
        ratios.append((bae.mean("loss") or 0.0) / statistics.median(losses.values()))
        beside = ", ".join(f"{name} {loss:.3g}" for name, loss in losses.items())
        shown.append(f"{bae.name} {bae.mean('loss'):.3g}; {beside}")
    return Measured(max(ratios), "; ".join(shown))


def interpretable_ratio(results: Results) -> Measured:
    """FI of the BAE over that of the best other."""
    ratios, shown = [], []
    for bae, others in _named(results):
        best = max(others, key=lambda run: run.interpretable)
        ratios.append(bae.interpretable / max(best.interpretable, 1))
        shown.append(f"{bae.name} {bae.interpretable}, {best.name} {best.interpretable}")
    return Measured(min(ratios), "; ".join(shown))


def top_score_gain(results: Results) -> Measured:
    """Mean of the BAE's best less the mean of the other of most features."""
    gains, shown = [], []
    for bae, others in _named(results):
        most = max(others, key=lambda run: len(run.scores))
        count = len(most.scores)
        if len(bae.scores) < count:
            raise NotTestable(
                f"{bae.name} has {len(bae.scores)} scored features and {most.name} {count}: there are none to leave out"
            )
        mine, theirs = statistics.fmean(sorted(bae.scores)[-count:]), statistics.fmean(most.scores)
        gains.append(mine - theirs)
        shown.append(f"top {count} of {bae.name}'s {len(bae.scores)}: {mine:.3f}, {most.name} {theirs:.3f}")
    return Measured(min(gains), "; ".join(shown))


def task_gain(results: Results) -> Measured:
    """Gap closed by the BAE's vector less that of the best other."""
    sweep = read_sweep(results["task vectors"][0])
    if sweep.few_shot <= sweep.zero_shot + 0.05:
        raise NotTestable(f"demonstrations do not help this model: {sweep.zero_shot:.2f} without, {sweep.few_shot:.2f} with")
    curves = [curve for curve in sweep.curves if not is_control(curve)]
    called = short_names([curve.name for curve in curves])
    closed = {called[curve.name]: sweep.recovered(curve) for curve in curves}
    (_, mine), *others = closed.items()
    if not others:
        raise NotTestable("no other dictionary's vector was measured")
    shown = ", ".join(f"{name} {share:.2f}" for name, share in closed.items())
    return Measured(mine - max(share for _, share in others), f"of a gap of {sweep.few_shot - sweep.zero_shot:.2f}: {shown}")


def bits_correlation(results: Results) -> Measured:
    """L_r and activated features against C, as many features for every C."""
    found = {
        c: value
        for f in results["more-bit"]
        for c, value in read_bits(f).items()
        if c.same == "features" and c.code == "powers"
    }
    values = [(cell.c, found[cell]) for cell in sorted(found)]
    if len(values) < 3:
        raise NotTestable(f"{len(values)} values of C are too few for a rank correlation")
    bits = [c for c, _ in values]
    ranks = _rank(bits, [value.loss for _, value in values]), _rank(bits, [value.activated for _, value in values])
    shown = "; ".join(f"C = {c}: L_r {v.loss:.4g}, FVU {v.fvu:.3f}, {v.activated} activated" for c, v in values)
    return Measured(max(ranks), shown)


def compressed_share(results: Results) -> Measured:
    """Bytes as 16-bit indices over fp32, of the BAE that takes least."""
    shown, shares = [], []
    for found in results["codec table"]:
        rows = read_table(found)
        plain = 2 * next(row.bytes for row in rows if row.how == "fp16")
        stored = [row for row in rows if row.how == "index, 16 bits"]
        if not stored:
            raise NotTestable("no BAE's codes were stored")
        best = min(stored, key=lambda row: row.bytes)
        least = min((row for row in rows if row.dictionary == best.dictionary), key=lambda row: row.bytes)
        shares.append(best.bytes / plain)
        kept = f"FVU {best.fvu:.3f}, cosine {best.cosine or 0:.3f}"
        shown.append(f"{best.bytes:.1f} of {plain:.0f} bytes, {kept}; at its entropy {least.bytes:.1f}")
    return Measured(min(shares), "; ".join(shown))


def dispersion_odds(results: Results) -> Measured:
    """Dispersion of the quarter of lowest scores against that of the highest."""
    odds, shown = [], []
    for bae, _ in _named(results, needs_others=False):
        known = sorted((score, spread) for score, spread in zip(bae.scores, bae.dispersions, strict=True) if spread is not None)
        quarter = len(known) // 4
        if quarter < FEWEST or known[0][0] == known[-1][0]:
            raise NotTestable(f"{len(known)} scored features of {bae.name}, of scores that differ too little, make no quarters")
        low, high = ([spread for _, spread in part] for part in (known[:quarter], known[-quarter:]))
        odds.append(float(mannwhitneyu(low, high).statistic) / quarter**2)
        shown.append(
            f"{bae.name}, {quarter} features a side: {statistics.median(low):.2f} against {statistics.median(high):.2f}"
        )
    return Measured(min(odds), f"median dispersion (1: as far apart as tokens of the same sentences), {'; '.join(shown)}")


MEASURES: dict[str, Callable[[Results], Measured]] = {
    measure.__name__: measure
    for measure in (
        share_of_ranks_found,
        entropy_without_over_with,
        share_of_saturating_layers,
        depth_correlation,
        shot_correlation,
        dense_share,
        activated_ratio,
        loss_ratio,
        interpretable_ratio,
        top_score_gain,
        task_gain,
        bits_correlation,
        compressed_share,
        dispersion_odds,
    )
}


def _rank(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's correlation; 0 where either does not vary."""
    if len(set(x)) < 2 or len(set(y)) < 2:
        return 0.0
    found: Any = spearmanr(x, y)
    return float(found.statistic)


def _layers(results: Results) -> dict[str, list[Row]]:
    """Rows of the cells' BAEs by hook point, in order of position; the embeddings, which are a table of tokens, left out."""
    layers: dict[str, list[Row]] = {}
    for row in read_trace(results["trace by position"][0]):
        if row.place["bae"] == "of the cell" and row.depth > 0:
            layers.setdefault(row.place["hook"], []).append(row)
    if not layers:
        raise NotTestable("no layer after the embeddings was traced by BAEs of its cells")
    return layers


def _sides(results: Results) -> list[tuple[Line, list[Line]]]:
    """The BAE of each comparison (the first of its methods), and the dictionaries that are none."""
    found = []
    for compared in map(read_compared, results["compare"]):
        lines = [line for line in compared.lines if line.frequency is not None]
        baes, others = ([line for line in lines if (line.family == "bae") == is_bae] for is_bae in (True, False))
        if not (baes and others):
            raise NotTestable("no BAE beside other dictionaries was measured")
        found.append((baes[0], others))
    return found


def _named(results: Results, needs_others: bool = True) -> list[tuple[Named, list[Named]]]:
    """Of each hook point the BAE, and the other dictionaries."""
    runs = [read_named(found) for found in results["comsem"]]
    found = []
    for hook in dict.fromkeys(run.hook for run in runs):
        here = [run for run in runs if run.hook == hook and run.scores]
        baes, others = ([run for run in here if run.is_bae == is_bae] for is_bae in (True, False))
        if not baes or (needs_others and not others):
            raise NotTestable("no BAE beside other dictionaries was named" if needs_others else "no BAE's features were named")
        found.append((baes[0], others))
    return found
