"""A plan as text: memory by part, a step by part, hours, cost and disk, and what does not fit."""

from collections.abc import Mapping

from tabulate import tabulate

from bae_lens.capacity.plan import BESIDE, FREE, LARGEST_SPLIT, Plan

MEMORY_PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "moments": "Adam's moments",
    "minibatch": "minibatch",
    "codes": "codes",
    "covariance": "covariance",
}


def describe(plan: Plan) -> str:
    """The whole page."""
    w = plan.wanted
    several = f"{plan.baes:,} BAEs ({w.layers} layers x {w.positions} positions)" if plan.baes > 1 else "One BAE"
    head = (
        f"{several}, d = {w.d_in}, d' = {plan.sae.d_sae:,}"
        + (f" of {w.bits_per_feature} bits" if w.bits_per_feature > 1 else "")
        + f", {w.tokens:,.0f} vectors each, {w.epochs:g} epochs in batches of {w.batch_size}, on {w.gpus} x {plan.device.title}"
    )
    return "\n\n".join([head, _memory(plan), _step(plan), _totals(plan), verdict(plan)])


def verdict(plan: Plan) -> str:
    """What fits, what does not, and which parallelism makes it fit."""
    w, room = plan.wanted, FREE * plan.device.memory
    one = f"One BAE takes {size(plan.whole.peak)} of the {size(room)} that a device has free"
    if not plan.split:
        return f"{one}: it does not fit, split over {LARGEST_SPLIT} devices neither. Lower the expansion, or the batch."
    if plan.split > 1:
        lacking = f", and only {w.gpus} are given: the figures are for {plan.split}" if w.gpus < plan.split else ""
        at_once = f", {plan.at_once} BAEs at a time" if plan.at_once > 1 else ""
        more = f", data parallel over {plan.shards} such groups" if plan.shards > 1 else ""
        return f"{one}: it does not fit. Feature parallel over {plan.split} devices makes it fit{at_once}{more}{lacking}."
    if plan.baes > 1:
        batched = f"; a device trains {plan.batched} of them together" if plan.batched > 1 else ""
        return f"{one}: it fits. The grid gives each of {plan.at_once} devices a BAE at a time{batched}."
    if plan.shards > 1:
        each = w.batch_size // plan.shards
        return f"{one}: it fits. Data parallel over {plan.shards} devices, {each} vectors a device and step."
    return f"{one}: it fits."


def overview(plans: Mapping[str, Plan]) -> str:
    """A row a plan, by their titles."""
    rows = [
        {
            "": title,
            "d": plan.wanted.d_in,
            "BAEs": plan.baes,
            "memory of one": size(plan.whole.peak),
            "devices for one": plan.split or "none",
            "ms a step": f"{1e3 * plan.step_seconds:.3g}",
            "device hours of one": f"{plan.hours_of_one:,.1f}",
            "hours": f"{plan.hours:,.1f}",
            "cost": "-" if plan.cost is None else f"{plan.cost:,.0f}",
            "activations": size(plan.disk_activations),
            "runs": size(plan.disk_runs),
        }
        for title, plan in plans.items()
    ]
    return tabulate(rows, headers="keys", tablefmt="github", colalign=("left", *["right"] * 10), disable_numparse=True)


def size(number: float) -> str:
    """Bytes in words.

    >>> size(3e9), size(2.5e12), size(8e6)
    ('3.00 GB', '2.50 TB', '8.00 MB')
    """
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if number >= scale:
            return f"{number / scale:.2f} {unit}"
    return f"{number / 1e6:.2f} MB"


def _memory(plan: Plan) -> str:
    memory = plan.memory
    rows = [(title, size(getattr(memory, name))) for name, title in MEMORY_PARTS.items()]
    rows.append(("peak (of start, steps and end)", size(memory.allocated)))
    rows.append(("with what allocators keep", size(memory.peak)))
    return tabulate(rows, headers=("memory on each device", ""), colalign=("left", "right"))


def _step(plan: Plan) -> str:
    rows = [(name, f"{1e3 * seconds:.3g}") for name, seconds in plan.step.items() if seconds]
    rows.append((f"a step ({' and '.join(BESIDE)} go on beside)", f"{1e3 * plan.step_seconds:.3g}"))
    return tabulate(rows, headers=("part of a step", "ms"), colalign=("left", "right"), disable_numparse=True)


def _totals(plan: Plan) -> str:
    w = plan.wanted
    cost = "give --price" if plan.cost is None else f"{plan.cost:,.2f}"
    rows = [
        ("steps of each BAE", f"{plan.steps:,}"),
        ("hours", f"{plan.hours:,.2f}"),
        ("device hours", f"{plan.hours * plan.devices:,.2f}"),
        ("cost", cost),
        (f"activations on disk ({w.dtype})", size(plan.disk_activations)),
        ("runs on disk (BAEs and checkpoints)", size(plan.disk_runs)),
        ("vectors held in the machine's memory", size(plan.host)),
    ]
    return tabulate(rows, headers=("in all", ""), colalign=("left", "right"), disable_numparse=True)
