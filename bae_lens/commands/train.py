"""`bae-lens train`: a BAE on activations from disk, or straight from a model."""

import argparse
from pathlib import Path
from typing import Any

from bae_lens.commands.parser import Commands, add_command, field_value
from bae_lens.commands.text_options import add_positions, add_text_options, positions_of, text_of


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens train --activations acts/ --hook blocks.5.hook_resid_pre --recipe recommended --out runs/l5\n"
        "  bae-lens train --model story-llama/ --text stories.txt --hook blocks.1.hook_resid_pre --out runs/l1\n"
        "  torchrun --nproc-per-node 4 -m bae_lens train --activations acts/ --feature-parallel 2 --out runs/l5"
    )
    parser = add_command(
        commands,
        "train",
        help="a BAE on activations from disk (`bae-lens harvest`), or straight from a model",
        description="Trains a Binary Autoencoder and measures it on documents that it was not trained on. The same command "
        "again goes on from the last checkpoint, with any number of processes.",
        example=example,
    )
    parser.add_argument("--activations", type=Path, help="directory of `bae-lens harvest`, or SAELens' cached activations")
    parser.add_argument("--model", help="instead: model directory or name, whose vectors are trained on as they are made")
    add_text_options(parser)
    parser.add_argument("--hook", help="hook point (needed where there are several)")
    add_positions(
        parser, 'train only on these places of a sequence, as 1,2,4 or 1 2 4; with --model also "last" (default: all)'
    )
    parser.add_argument("--out", type=Path, required=True, help="directory for the run and the BAE")
    parser.add_argument("--recipe", default="recommended", help="name of a recipe (%(default)s)")
    parser.add_argument("--steps", type=int, help="training steps (default: the recipe's)")
    parser.add_argument("--expansion", type=float, default=4, help="features a dimension (%(default)s)")
    parser.add_argument("--bits-per-feature", type=int, help="bits that share a decoder row (default: the recipe's)")
    parser.add_argument("--set", nargs="*", default=[], metavar="FIELD=VALUE", help="fields of the recipe to set anew")
    parser.add_argument("--held-out", type=float, default=0.15, help="share of the documents to measure on (%(default)s)")
    parser.add_argument("--measured", type=int, default=65_536, help="vectors to measure on at most (%(default)s)")
    parser.add_argument("--memory", type=float, default=1.0, help="GiB of vectors to hold while training (%(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--feature-parallel",
        type=int,
        default=1,
        metavar="N",
        help="under torchrun: teams of N processes split the features; the teams share each minibatch (%(default)s)",
    )
    parser.add_argument("--json", type=Path, help="file for every number")
    parser.set_defaults(run=_run)


def _run(args: argparse.Namespace) -> int:
    import bae_lens
    from bae_lens.files import check_output_file

    if args.json:
        check_output_file(args.json)
    if (args.activations is None) == (args.model is None):
        raise ValueError("give either --activations, a directory of `bae-lens harvest`, or --model with --text")
    if args.activations and args.text:
        raise ValueError("--text goes with --model: the vectors of --activations are of the text that was harvested")
    if args.measured < 1:
        raise ValueError(f"--measured must be at least 1, got {args.measured}")
    with bae_lens.distributed(feature_parallel=args.feature_parallel, device=args.device) as parallel:
        args.device = parallel.device or args.device
        vectors, held_out, metadata = _from_disk(args) if args.activations else _from_model(args)
        if parallel.is_first:
            name = metadata.get("hook_name") or "vectors"
            print(f"{name}: width {vectors.d_in}; {len(held_out):,} vectors of other documents are held out to measure on")
        recipe = _recipe(args, vectors.d_in)
        trained = bae_lens.train(
            vectors, recipe, validation=held_out, metadata=metadata, out=args.out, resume=True, parallel=parallel
        )
        if parallel.is_first:
            _report(args, trained.bae, held_out, recipe, metadata)
    return 0


def _report(args: argparse.Namespace, bae: Any, held_out: Any, recipe: Any, metadata: dict[str, Any]) -> None:
    """What came of it, on the vectors that were held out."""
    from bae_lens.analyze.statistics import code_statistics
    from bae_lens.files import write_json

    found = code_statistics(bae, held_out).numbers()
    print(
        f"held out: FVU {found['fvu']:.4f} at a marginal entropy of {found['entropy']:.1f} bits a token; "
        f"L0 {found['l0']:.1f}, {found['live']} live, {found['dead']} dead, {found['dense']} dense"
    )
    print(f"Saved to {args.out}: bae_lens.load({str(args.out)!r})")
    if args.json:
        write_json(args.json, {**found, "out": str(args.out), "recipe": recipe.to_dict(), "metadata": metadata})


def _from_disk(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """The training vectors, those to measure on, and what is known of them."""
    from bae_lens.activations.dataset import ActivationDataset

    positions = positions_of(args.positions)
    if positions == "last":
        raise ValueError(
            "which token is the last one is known while harvesting: bae-lens harvest --positions last, or train --model"
        )
    places = None if isinstance(positions, str) else positions
    dataset = ActivationDataset(args.activations, args.hook, places, memory=round(args.memory * 2**30))
    train, held_out = dataset.split(args.held_out, seed=args.seed)
    known = {name: dataset.metadata[name] for name in METADATA if name in dataset.metadata}
    return train, held_out.sample(args.measured, seed=args.seed), known


def _from_model(args: argparse.Namespace) -> tuple[Any, Any, dict[str, Any]]:
    """As `_from_disk`."""
    import torch

    from bae_lens.activations.hugging_face import load_for_harvest
    from bae_lens.activations.stream import ModelActivations

    if args.hook is None:
        raise ValueError("say which hook point to train on: --hook blocks.1.hook_resid_pre, for one")
    model = load_for_harvest(args.model, [args.hook], device=args.device)
    options: dict[str, Any] = {"model_name": args.model, "held_out": args.held_out, "seed": args.seed}
    options |= {"positions": positions_of(args.positions), "mixed_bytes": round(args.memory * 2**30) // 2}
    text = text_of(args)
    train = ModelActivations(model, text, args.hook, **options)
    held_out = ModelActivations(model, text, args.hook, side="held_out", tokens=args.measured, **options)
    return train, torch.cat(list(held_out.in_order())), train.metadata


def _recipe(args: argparse.Namespace, d_in: int) -> Any:
    """The recipe that was asked for."""
    import inspect

    from bae_lens.training.config import with_changes
    from bae_lens.training.recipes import get_recipe

    make = get_recipe(args.recipe)
    chosen = {"steps": args.steps, "bits_per_feature": args.bits_per_feature}
    chosen = {name: value for name, value in chosen.items() if value is not None}
    unknown = [name for name in chosen if name not in inspect.signature(make).parameters]
    if unknown:
        raise ValueError(f"the recipe {args.recipe!r} has no {', '.join(unknown)}: leave it away, or see --set")
    recipe = make(d_in, args.expansion, seed=args.seed, device=args.device, **chosen)
    return with_changes(recipe, dict(map(field_value, args.set)))


METADATA = ("model_name", "hook_name", "context_size", "prepend_bos", "dataset_path")
"""What SAELens wants to know of where an SAE belongs."""
