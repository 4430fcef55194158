"""What the main job found, in words and tables."""

from typing import Any, NamedTuple

from bae_lens.analyze.contexts import FeatureContexts
from bae_lens.analyze.description_length import CodeLength
from bae_lens.analyze.fidelity import Fidelity
from bae_lens.analyze.statistics import CodeStatistics


class Row(NamedTuple):
    """One dictionary in the table."""

    name: str
    stats: CodeStatistics
    fidelity: Fidelity
    length: CodeLength
    seconds: float

    def numbers(self) -> dict[str, Any]:
        """For JSON."""
        stats, fidelity, length = self.stats.numbers(), self.fidelity._asdict(), self.length._asdict()
        return {"name": self.name, **stats, "ce": fidelity, "code_length": length, "training_seconds": self.seconds}


def table(rows: list[Row]) -> list[dict[str, str]]:
    """The rows as text."""
    return [
        {
            "dictionary": row.name,
            "FVU": f"{row.stats.fvu:.4f}",
            "CE recovered (zero)": f"{row.fidelity.recovered_from_zero:.4f}",
            "(mean)": f"{row.fidelity.recovered_from_mean:.4f}",
            "L0": f"{row.stats.l0:.1f}",
            "live": str(row.stats.live),
            "dead": str(row.stats.dead),
            "dense": str(row.stats.dense),
            "bits/token": f"{row.length.bits:.1f}",
            "at FVU": f"{row.length.fvu:.4f}",
            "train s": f"{row.seconds:.0f}",
        }
        for row in rows
    ]


def describe(stats: CodeStatistics, flipped: int, *, nested: bool = False) -> str:
    """A code in one sentence, FVU and entropy together; of nested bits, which statistics count feature by feature."""
    entropy, counted = ("marginal entropy of which features are on", "features") if nested else ("marginal entropy", "bits")
    return (
        f"held out: FVU {stats.fvu:.4f} with {stats.entropy:.1f} bits a token ({entropy}), L0 {stats.l0:.1f}; "
        f"of {len(stats.frequency)} {counted} {stats.live} live, {stats.dead} dead ({stats.stuck_at_one} of them stuck at 1), "
        f"{stats.dense} dense; {flipped} features turned round"
    )


def describe_fidelity(f: Fidelity) -> str:
    """The losses in one sentence, with both baselines."""
    return (
        f"CE loss in nats: clean {f.clean:.3f}, spliced {f.spliced:.3f}, zero-ablated {f.zero_ablated:.3f}, mean-ablated "
        f"{f.mean_ablated:.3f}; recovered {f.recovered_from_zero:.4f} against zero, {f.recovered_from_mean:.4f} against mean"
    )


def describe_contexts(c: FeatureContexts) -> str:
    """A feature and its contexts, the token where it fires in guillemets."""
    tokens = ", ".join(f"{token!r} x{times}" for token, times in c.top_tokens)
    lines = [f"feature {c.feature}, on for {c.frequency:.2%} of tokens: {tokens}"]
    lines += ["    ..." + " ".join(f"{x.before}«{x.token}»{x.after}".split()) + "..." for x in c.contexts]
    return "\n".join(lines)
