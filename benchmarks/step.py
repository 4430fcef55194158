"""What a training step costs: a BAE's beside SAELens' standard SAE's and beside the published formulation, in one run.

    python benchmarks/step.py --json out.json                            # live share and density as measured before
    python benchmarks/step.py --model story-llama/ --text stories.txt    # measures them in a `recommended` run first
    python benchmarks/step.py --products fp32 --only covariance          # as on a processor without int8 dot products
    python benchmarks/step.py --device cuda                              # on a GPU: larger sizes, and the kernels' floor

All contestants take turns, and the median of each one's times counts: ratios mean something on a shared machine, times do not.
"Published" is the published code's arithmetic: dense products, torch.cov, unfused Adam. SAELens' step is that of its trainer:
forward pass, backward pass, gradients clipped at norm 1, unfused Adam; "fused" is the same with fused Adam and no clipping.
"""

import argparse
import dataclasses
import json
import math
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
from sae_lens.saes.sae import TrainStepInput
from tabulate import tabulate
from torch import Tensor, nn

import bae_lens
from bae_lens.objective import covariance
from bae_lens.objective.covariance import covariance_loss
from bae_lens.objective.entropy import entropy_loss

REAL = {"live": 0.944, "density": 0.0445, "near": 0.077}
"""Second half of a `recommended` run on the story Llama, blocks.1.hook_resid_pre, d' = 512: share of bits that change in a
minibatch of 512, of ones among all bits, of pre-activations within the surrogate's reach. `--model` measures them again."""
FULLY_LIVE = {"live": 1.0, "density": 0.5, "near": 0.3}
PRODUCTS = {"int8": covariance.INT8, "fp32": covariance.FLOAT}
TABLES = ("covariance", "step", "growth", "large", "kernels")


class Codes(NamedTuple):
    """What a minibatch's code is made to look like."""

    live: float
    density: float
    near: float


# ---------------------------------------------------------------------------------------------------------- contestants


def published_covariance(bits: Tensor) -> Tensor:
    cov = torch.cov(bits.T)
    return cov.abs().sum() - cov.diagonal().abs().sum()


def saelens_step(d_in: int, d_sae: int, x: Tensor, *, fused: bool) -> Callable[[], None]:
    sae = StandardTrainingSAE(StandardTrainingSAEConfig(d_in=d_in, d_sae=d_sae, device=str(x.device)))
    optimizer = torch.optim.Adam(sae.parameters(), lr=1e-7, fused=fused or None)
    step_input = TrainStepInput(x, {"l1": 1.0}, None, 1000, False)

    def step() -> None:
        output = sae.training_forward_pass(step_input)
        optimizer.zero_grad()
        output.loss.backward()
        if not fused:
            torch.nn.utils.clip_grad_norm_(sae.parameters(), 1.0)
        optimizer.step()

    return step


def bae_step(sae: bae_lens.TrainingBAE, x: Tensor) -> Callable[[], None]:
    trainable = [p for p in sae.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(trainable, lr=1e-7, fused=True)
    step_input = TrainStepInput(x, {"entropy": 0.1, "covariance": 2e-3}, None, 1000, False)

    def step() -> None:
        output = sae.training_forward_pass(step_input)
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()

    return step


class _PublishedStep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pre: Tensor) -> Tensor:  # noqa: ARG004
        return (pre > 0).float()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return grads[0] * (1 - grads[0])


def published_step(sae: bae_lens.TrainingBAE, x: Tensor) -> Callable[[], None]:
    encoder, decoder = nn.Linear(sae.cfg.d_in, sae.cfg.d_sae), nn.Linear(sae.cfg.d_sae, sae.cfg.d_in)
    for layer, weight, bias in ((encoder, sae.W_enc.T, sae.b_enc), (decoder, sae.W_dec.T, sae.b_dec)):
        layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        layer.to(x.device)
    optimizer = torch.optim.Adam([*encoder.parameters(), *decoder.parameters()], lr=1e-7)

    def step() -> None:
        bits: Any = _PublishedStep.apply(encoder(x))
        error = (decoder(bits) - x).pow(2).mean()
        loss = error + 1e-7 * entropy_loss(bits.mean(0), "bernoulli") + 1e-7 * published_covariance(bits)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def bae_with(codes: Codes, d_in: int, d_sae: int, x: Tensor) -> bae_lens.TrainingBAE:
    """A BAE whose code of x has this share of live bits, ones, and pre-activations near the threshold."""
    cfg = dataclasses.replace(bae_lens.recipes.recommended(d_in, d_sae / d_in).sae, init="default", device=str(x.device))
    sae = bae_lens.TrainingBAE(cfg)
    on = codes.density / codes.live
    threshold = math.sqrt(2) * torch.erfinv(torch.tensor(1 - 2 * on)).item()  # of a unit normal that is over it that often
    scale = reach_scale(threshold, codes.near / codes.live, cfg.surrogate_width)
    with torch.no_grad():
        sae.W_enc.normal_(std=scale * d_in**-0.5)
        pre = x @ sae.W_enc
        rank = min(max(round((1 - on) * len(x)), 1), len(x) - 1)
        sae.b_enc.copy_(-pre.sort(0).values[rank])
        sae.b_enc[torch.randperm(d_sae)[: d_sae - round(codes.live * d_sae)]] = -1e3
        sae.W_dec.normal_(std=0.1 * d_in**-0.5)
    return sae


def reach_scale(threshold: float, near: float, width: float) -> float:
    """The standard deviation at which a normal is within `width` of so high a threshold for this share; by bisection."""
    low, high = 1e-2, 1e2
    normal = torch.distributions.Normal(0, 1)
    for _ in range(60):
        scale = math.sqrt(low * high)
        ends = normal.cdf(torch.tensor([threshold + width / scale, threshold - width / scale]))
        low, high = (scale, high) if (ends[0] - ends[1]).item() > near else (low, scale)
    return scale


def force_products(name: str) -> None:
    """Has the covariance count in these products, whichever are faster here."""
    covariance.fastest_product = lambda device_type: PRODUCTS[name]


# ------------------------------------------------------------------------------------------------------------- measuring


def seconds(contestants: dict[str, Callable[[], Any]], rounds: int, device: str) -> dict[str, float]:
    """The median time of each, all of them taking turns."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + (rounds > 1)):
        for name, run in contestants.items():
            synchronize(device)
            begin = time.perf_counter()
            run()
            synchronize(device)
            if number or rounds == 1:
                times[name].append(time.perf_counter() - begin)
    return {name: statistics.median(t) for name, t in times.items()}


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def random_bits(batch: int, d_bits: int, live: float, density: float | None, device: str) -> Tensor:
    """Live bits of one density, or of densities from 0.05 to 0.95; the others are 0."""
    on = torch.rand(d_bits, device=device) * 0.9 + 0.05 if density is None else torch.full((d_bits,), density, device=device)
    bits = (torch.rand(batch, d_bits, device=device) < on).float()
    bits[:, torch.randperm(d_bits, device=device)[round(live * d_bits) :]] = 0
    return bits


def backward_of(loss: Callable[[Tensor], Tensor], bits: Tensor) -> Callable[[], None]:
    leaf = bits.requires_grad_()

    def run() -> None:
        leaf.grad = None
        loss(leaf).backward()

    return run


def covariance_rows(d_bits: int, batch: int, rounds: int, device: str) -> Iterator[dict[str, Any]]:
    goals = {1.0: 1.9, 0.5: None, 0.25: 18, 0.1: 50}
    for live, goal in goals.items():
        bits = random_bits(batch, d_bits, live, None, device)
        everything = random_bits(batch, d_bits, 1.0, None, device)
        took = seconds(
            {"torch.cov": backward_of(published_covariance, everything), "bae_lens": backward_of(covariance_loss, bits)},
            rounds,
            device,
        )
        yield {"live": live, **milliseconds(took), "times faster": took["torch.cov"] / took["bae_lens"], "goal": goal}


def step_row(d_in: int, d_sae: int, batch: int, codes: Codes, rounds: int, device: str, *, published: bool = True) -> dict:
    x = torch.randn(batch, d_in, device=device)
    sae = bae_with(codes, d_in, d_sae, x)
    bits = sae.bits(x)
    contestants = {
        "BAE": bae_step(sae, x),
        "SAELens": saelens_step(d_in, d_sae, x, fused=False),
        "SAELens fused": saelens_step(d_in, d_sae, x, fused=True),
    }
    if published:
        contestants["published"] = published_step(sae, x)
    took = seconds(contestants, rounds, device)
    mean = bits.mean(0)
    row: dict[str, Any] = {
        "d": d_in,
        "d'": d_sae,
        "batch": batch,
        "live": ((mean > 0) & (mean < 1)).float().mean().item(),
        "density": bits.mean().item(),
        **milliseconds(took),
        "of SAELens": took["BAE"] / took["SAELens"],
        "of SAELens fused": took["BAE"] / took["SAELens fused"],
    }
    if published:
        row["published / BAE"] = took["published"] / took["BAE"]
        row["published / SAELens"] = took["published"] / took["SAELens"]
    return row


def milliseconds(took: dict[str, float]) -> dict[str, float]:
    return {f"{name}, ms": 1e3 * t for name, t in took.items()}


def kernel_floor(d_bits: int, batch: int, rounds: int) -> dict[str, Any]:
    """The covariance term at a live share of 1 beside its floor: 1.5 products of 2 n d'^2 operations at cuBLAS' bf16 rate."""
    a = torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16)
    bits = random_bits(batch, d_bits, 1.0, None, "cuda")
    took = seconds({"product": lambda: a @ a, "covariance": backward_of(covariance_loss, bits)}, rounds, "cuda")
    rate = 2 * 8192**3 / took["product"]
    floor = 1.5 * 2 * batch * d_bits**2 / rate
    return {
        "d'": d_bits,
        "batch": batch,
        "bf16 TFLOP/s": rate / 1e12,
        "floor, ms": 1e3 * floor,
        "share": floor / took["covariance"],
    }


def measured_codes(model_path: str, text: Path, hook: str) -> Codes:
    """Live share, density and reach over the second half of a `recommended` run."""
    model = bae_lens.load_model(model_path)
    windows = bae_lens.tokenize(model.tokenizer, bae_lens.split_documents(bae_lens.read_documents(text)).train, 256)
    x = bae_lens.harvest(model, windows, hook, max_tokens=400_000).vectors
    recipe = bae_lens.recipes.recommended(x.shape[1], 4)
    seen: list[tuple[float, float, float]] = []

    class Watched(bae_lens.TrainingBAE):
        def training_forward_pass(self, step_input: TrainStepInput) -> Any:
            output = super().training_forward_pass(step_input)
            if step_input.n_training_steps >= (recipe.trainer.steps or 0) // 2:
                mean = output.feature_acts.mean(0)
                live = ((mean > 0) & (mean < 1)).float().mean()
                near = (output.hidden_pre.abs() <= self.cfg.surrogate_width).float().mean()
                seen.append((live.item(), mean.mean().item(), near.item()))
            return output

    from bae_lens.training import trainer

    trainer.TrainingBAE = Watched  # pyright: ignore[reportAttributeAccessIssue]
    bae_lens.train(x, recipe)
    return Codes(*(statistics.mean(values) for values in zip(*seen, strict=True)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="measure the live share on this model (default: the value measured before)")
    parser.add_argument("--text", type=Path, help="with --model")
    parser.add_argument("--hook", default="blocks.1.hook_resid_pre")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    parser.add_argument(
        "--products", choices=tuple(PRODUCTS), help="of the covariance on a CPU (default: the faster ones here)"
    )
    parser.add_argument(
        "--only", nargs="+", choices=TABLES, default=TABLES, help="which tables (default: all; kernels on cuda)"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    if args.products and args.device == "cuda":
        parser.error("--products are a CPU's; on cuda kernels count: leave it away")
    return args


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    if args.products:
        force_products(args.products)
    torch.manual_seed(0)
    real = measured_codes(args.model, args.text, args.hook) if args.model else Codes(**REAL)
    torch.set_num_threads(args.threads)
    torch.backends.cuda.matmul.allow_tf32 = True
    results: dict[str, Any] = {"device": args.device, "threads": args.threads, "torch": torch.__version__, **real._asdict()}
    if args.device == "cpu":
        results["products"] = next(name for name, p in PRODUCTS.items() if p is covariance.fastest_product("cpu"))
        print(f"The covariance counts in {results['products']} products")
    print(f"A recommended run's codes: live {real.live:.3f}, ones {real.density:.4f}, near the threshold {real.near:.3f}")

    def show(table: str, title: str, rows: Iterable[dict[str, Any]]) -> None:
        if table in args.only:
            results[title] = list(rows)
            print(f"\n{title}\n{tabulate(results[title], headers='keys', floatfmt='.3g')}", flush=True)

    both, device, rounds = (real, Codes(**FULLY_LIVE)), args.device, args.rounds
    show("covariance", "Covariance, forward and backward, d' = 2048, batch 512", covariance_rows(2048, 512, rounds, device))
    show(
        "step",
        "A whole step: goals 0.9 of SAELens at the real code, 1.6 fully live, 4 times faster than published",
        (step_row(512, 2048, 512, codes, rounds, device) for codes in both),
    )
    show(
        "growth",
        "Growth with d' at d = 512, the real code",
        (
            step_row(512, d_sae, 512, real, max(rounds // 4, 1), device, published=d_sae <= 4096)
            for d_sae in (512, 1024, 2048, 4096, 8192, 16384)
        ),
    )
    if device == "cpu":
        show("large", "d = 2048, d' = 8192, one step of each", (step_row(2048, 8192, 512, codes, 1, device) for codes in both))
    else:
        large = (step_row(2048, 8192, 4096, codes, rounds, device) for codes in both)
        show("large", "d = 2048, d' = 8192, batch 4096", large)
        sizes = ((2048, 512), (8192, 512), (8192, 4096), (32768, 8192))
        show("kernels", "The kernels beside their floor", (kernel_floor(*size, rounds) for size in sizes))
    if args.json:
        args.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
