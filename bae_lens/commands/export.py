"""`bae-lens export`: a BAE as a JumpReLU SAE that plain SAELens loads."""

import argparse
from pathlib import Path

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = "bae-lens export --bae runs/demo/bae --model story-llama/ --text stories.txt --out runs/jumprelu"
    parser = add_command(
        commands,
        "export",
        help="a BAE of one bit a feature as a JumpReLU SAE that SAELens loads without this package",
        description="Exports a BAE, and prints how far activations and reconstructions are from its own on a text.",
        example=example,
    )
    parser.add_argument("--bae", type=Path, required=True, help="directory of a BAE")
    parser.add_argument("--model", required=True, help="model directory or name")
    parser.add_argument("--text", type=Path, required=True, help="text file to measure on, a document a line")
    parser.add_argument("--out", type=Path, required=True, help="directory for the SAE")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="activations lie in [1, 1 + tolerance] (%(default)s)")
    parser.add_argument("--tokens", type=int, default=20_000, help="tokens to measure on (%(default)s)")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import bae_lens
    from bae_lens.files import check_output_directory, new_directory
    from bae_lens.model.views import describe_export, export_jumprelu

    check_output_directory(args.out)
    bae = bae_lens.load(args.bae)
    model = bae_lens.load_model(args.model)
    windows = bae_lens.tokenize(model.tokenizer, bae_lens.read_documents(args.text), min(256, model.cfg.n_ctx))
    vectors = bae_lens.harvest(model, windows, bae.cfg.metadata.hook_name, max_tokens=args.tokens).vectors
    sae, report = export_jumprelu(bae, vectors, args.tolerance)
    with new_directory(args.out) as directory:
        sae.save_model(directory)
    print(f"{describe_export(report)} (measured on {len(vectors)} tokens)")
    print(f"Saved to {args.out}: SAE.load_from_disk('{args.out}') needs only sae_lens")
    return 0
