"""`bae-lens harvest`: activations of a model to disk."""

import argparse
import os
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command
from bae_lens.commands.text_options import add_positions, add_text_options, positions_of, text_of


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens harvest --model story-llama/ --text stories.txt --hooks 'blocks.*.hook_resid_pre' --out acts/\n"
        "  bae-lens harvest --model meta-llama/Llama-3.2-1B --text monology/pile-uncopyrighted --tokens 10_000_000 \\\n"
        "      --hooks 'blocks.*.hook_resid_pre' --positions 1,2,4,8 --dtype bf16 --out acts/"
    )
    parser = add_command(
        commands,
        "harvest",
        help="what passes a model's hook points, to disk once, to train on many times",
        description="Runs a model over text and writes what passes its hook points, BOS left out, in shards with a manifest. "
        "The same command again goes on after the last whole shard. Under torchrun the processes share the text.",
        example=example,
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the activations")
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument("--hooks", nargs="+", default=["blocks.*.hook_resid_pre"], help="names or patterns (%(default)s)")
    add_text_options(parser)
    add_positions(parser, 'places of a sequence as 1,2,4 or 1 2 4; or "last" (default: all)')
    parser.add_argument("--tokens", type=int, help="vectors a hook point at most (default: all of the text)")
    parser.add_argument("--context-size", type=int, help="tokens a sequence (default: 1024, or the model's context)")
    parser.add_argument("--layout", default="padded", help='"padded": a document a sequence; "packed" (%(default)s)')
    parser.add_argument("--keep-bos", action="store_true", help="keep BOS too; its norm is several times that of the others")
    parser.add_argument("--no-bos", action="store_true", help="do not begin sequences with BOS")
    parser.add_argument("--min-tokens", type=int, help="leave out shorter sequences (default: those short of the positions)")
    parser.add_argument("--dtype", default="fp32", help="fp32, fp16 or bf16, on disk (%(default)s)")
    parser.add_argument("--seed", type=int, help="take the documents in a random order (default: in theirs)")
    parser.add_argument("--batch-tokens", type=int, help="tokens a forward pass (default: 2048 on a CPU, 16384 on a GPU)")
    parser.add_argument("--via", default="auto", help="hugging_face, hooked_transformer or bridge (default: the fastest)")
    parser.add_argument("--model-dtype", default="fp32", help="that the model runs in (%(default)s)")
    parser.add_argument("--device", default="cpu")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    from bae_lens.activations.harvest_disk import harvest_to_disk
    from bae_lens.activations.harvest_options import DTYPES
    from bae_lens.activations.hugging_face import load_for_harvest
    from bae_lens.activations.sequences import describe_dropped
    from bae_lens.checks import check_known
    from bae_lens.demo import demo_model_dir

    check_known("dtype", args.model_dtype, DTYPES)
    positions, text = positions_of(args.positions), text_of(args)
    name = args.model or str(demo_model_dir())
    model = load_for_harvest(name, args.hooks, via=args.via, device=own_device(args.device), dtype=DTYPES[args.model_dtype])
    result = harvest_to_disk(
        model,
        text,
        hooks=args.hooks,
        out=args.out,
        say=print,
        model_name=name,
        positions=positions,
        tokens=args.tokens,
        context_size=args.context_size,
        layout=args.layout,
        keep_bos=args.keep_bos,
        prepend_bos=not args.no_bos,
        min_tokens=args.min_tokens,
        dtype=args.dtype,
        seed=args.seed,
        batch_tokens=args.batch_tokens,
    )
    print(f"{result.vectors:,} vectors a hook point in {args.out}; left out: {describe_dropped(result.dropped)}")
    if result.finished:
        print(f"Next: bae-lens train --activations {args.out} --hook {result.hooks[len(result.hooks) // 2]} --out runs/bae")
    return 0


def own_device(device: str) -> str:
    """Under torchrun, each process's own GPU."""
    local = os.environ.get("LOCAL_RANK")
    return f"cuda:{local}" if device == "cuda" and local is not None else device
