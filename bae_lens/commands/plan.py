"""`bae-lens plan`: memory, hours, cost and disk of training BAEs, before any of it is started."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from bae_lens.commands.parser import Commands, add_command

if TYPE_CHECKING:
    from bae_lens.capacity.plan import Wanted


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens plan --d-in 2048 --expansion 4 --tokens 8e6 --epochs 200 --device h100\n"
        "  bae-lens plan --model llama-3.2-1b --positions 11 --tokens 262144 --epochs 2000 --gpus 8 --price 3"
    )
    parser = add_command(
        commands,
        "plan",
        help="memory, hours, cost and disk of training BAEs, before any of it is started",
        description="Plans training by the recipe `recommended` on paper: memory by part, a step by a roofline of the device, "
        "and what makes fit what does not. Harvesting is not counted.",
        example=example,
    )
    parser.add_argument("--model", help="widths and layers of llama-3.2-1b, llama-3.2-3b, llama-3.1-8b, llama-3.1-70b, or all")
    parser.add_argument("--d-in", type=int, help="instead: width of the vectors")
    parser.add_argument("--layers", type=int, help="layers with a BAE each (default: the model's; 1 with --d-in)")
    parser.add_argument("--positions", type=int, default=1, help="places of a sequence with a BAE each (%(default)s)")
    parser.add_argument("--expansion", type=float, default=4, help="features a dimension (%(default)s)")
    parser.add_argument("--bits-per-feature", type=int, default=1, help="bits that share a decoder row (%(default)s)")
    parser.add_argument("--tokens", type=float, default=8e6, help="vectors of each BAE (%(default)g)")
    parser.add_argument("--epochs", type=float, default=200, help="times that they are seen (%(default)s)")
    parser.add_argument("--batch-size", type=int, default=512, help="vectors a step (%(default)s)")
    parser.add_argument("--device", default="h100", help="h100, h200, a100, l4, rtx4090, m1-max or cpu (%(default)s)")
    parser.add_argument("--gpus", type=int, default=1, help="devices (%(default)s)")
    parser.add_argument("--price", type=float, help="of an hour of one device")
    parser.add_argument("--tf32", action="store_true", help="products in TF32: torch.set_float32_matmul_precision('high')")
    parser.add_argument("--dtype", default="fp32", help="of activations on disk: bf16, fp16 or fp32 (%(default)s)")
    parser.add_argument("--disk-rate", type=float, default=3, help="GB a second that the disk gives one process (%(default)s)")
    parser.add_argument(
        "--measure", nargs="?", const="cpu", help="measure a device of this machine, cpu or cuda, and plan for it"
    )
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.capacity.models import MODELS
    from bae_lens.capacity.page import describe, overview
    from bae_lens.capacity.plan import make_plan
    from bae_lens.files import check_output_file, write_json

    if args.json:
        check_output_file(args.json)
    names = list(MODELS) if args.model == "all" else [args.model]
    wanted = [_wanted(args, name) for name in names]
    device = None
    if args.measure:
        from bae_lens.capacity.measure import measure

        found = measure(args.measure)
        device = found.device
        print(
            f"Measured on {device.title}: products {device.fp32 / 1e9:,.0f} GFLOP/s in fp32, {device.tf32 / 1e9:,.0f} in TF32, "
            f"{device.int8 / 1e9:,.0f} Gop/s in int8; copies {device.bandwidth / 1e9:,.1f} GB/s\n"
            f"A step at d = 512, d' = 2048, batch 512 took {1e3 * found.step:.3g} ms, "
            f"the roofline says {1e3 * found.predicted:.3g}\n"
        )
    plans = [make_plan(one, device) for one in wanted]
    titles = [MODELS[name].title if name else "" for name in names]
    print(describe(plans[0]) if len(plans) == 1 else overview(dict(zip(titles, plans, strict=True))))
    if args.json:
        found = [plan.to_dict() for plan in plans]
        write_json(args.json, found[0] if len(found) == 1 else dict(zip(names, found, strict=True)))
    return 0


def _wanted(args: argparse.Namespace, model: str | None) -> "Wanted":
    """What the options ask for, of a model."""
    from bae_lens.capacity.models import model_of
    from bae_lens.capacity.plan import Wanted

    if (model is None) == (args.d_in is None):
        raise ValueError("give either --model, one of the Llamas, or --d-in, the width of the vectors")
    d_in, layers = args.d_in, args.layers or 1
    if model:
        shape = model_of(model)
        d_in, layers = shape.d_model, shape.layers if args.layers is None else args.layers
        if layers > shape.layers:
            raise ValueError(f"{shape.title} has {shape.layers} layers, --layers asks for {layers}")
    return Wanted(
        d_in=d_in,
        layers=layers,
        positions=args.positions,
        expansion=args.expansion,
        bits_per_feature=args.bits_per_feature,
        tokens=args.tokens,
        epochs=args.epochs,
        batch_size=args.batch_size,
        device=args.device,
        gpus=args.gpus,
        price=args.price,
        tf32=args.tf32,
        dtype=args.dtype,
        disk_rate=1e9 * args.disk_rate,
    )
