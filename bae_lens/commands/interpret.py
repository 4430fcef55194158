"""`bae-lens interpret`: names and scores for features, ComSem (section 5.1)."""

import argparse
from pathlib import Path
from typing import Any

from bae_lens.commands.parser import Commands, add_command


def add(commands: Commands) -> None:
    """Adds the command."""
    example = (
        "bae-lens demo --recipe rate_distortion --out runs/rd && bae-lens interpret --bae runs/rd/bae --k 1\n"
        "  bae-lens interpret --model DIR --bae runs/l5 --text FILE --backend openai --llm gpt-4.1-mini --budget 5 --dry-run\n"
        "  bae-lens interpret --model DIR --bae runs/l5 --text FILE --backend http://localhost:8000/v1 --llm NAME"
    )
    parser = add_command(
        commands,
        "interpret",
        help="names and scores for features: ComSem, through an OpenAI-compatible model or by rules",
        description="Collects the tokens where each feature is activated, has them named by what they have in common, and has "
        "the name judged on others. The same command again goes on where it was: no answered request is sent twice.",
        example=example,
    )
    parser.add_argument("--model", help="model directory or name (default: the embedded tiny Llama)")
    parser.add_argument(
        "--bae", required=True, metavar="DIR", help="directory of a BAE or of any SAELens SAE, or RELEASE:SAE_ID"
    )
    parser.add_argument("--hook", help="hook point, where the SAE does not say which")
    parser.add_argument("--text", type=Path, help="text file, a document a line (default: the embedded corpus)")
    parser.add_argument("--out", type=Path, default=Path("runs/comsem"), help="directory for what is made (%(default)s)")
    parser.add_argument("--dry-run", action="store_true", help="say what it would cost; nothing is sent")
    _add_backends(parser)
    _add_samples(parser)
    _add_scores(parser)
    parser.set_defaults(run=_run)


def _add_backends(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("who answers")
    group.add_argument("--backend", default="rules", help='"openai", the address of another server, or "rules" (%(default)s)')
    group.add_argument("--llm", default="", help="the model that names")
    group.add_argument("--judge-backend", help="as --backend, for judging (default: the same)")
    group.add_argument("--judge-llm", help="the model that judges (default: the same)")
    group.add_argument("--api-key-variable", help="environment variable of the API key (openai: OPENAI_API_KEY; others: none)")
    group.add_argument("--budget", type=float, help="dollars that are never passed")
    group.add_argument("--prices", type=Path, help='JSON file: {"MODEL": [dollars a million prompt tokens, of answers]}')
    group.add_argument("--price", action="append", default=[], metavar="MODEL=PROMPT,COMPLETION", help="a price, the same way")
    group.add_argument("--concurrency", type=int, default=16, help="requests at a time (%(default)s)")
    group.add_argument("--requests-a-minute", type=float, help="at most")
    group.add_argument("--tokens-a-minute", type=float, help="at most")
    group.add_argument("--timeout", type=float, default=120, help="seconds for one answer (%(default)s)")
    group.add_argument("--tries", type=int, default=8, help="of a request that is not answered (%(default)s)")


def _add_samples(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("samples (Algorithm 1)")
    group.add_argument("--sentences", type=int, default=8192, help="N, sentences (%(default)s)")
    group.add_argument("--tokens", type=int, help="N, tokens (no limit)")
    group.add_argument("--n-interpret", type=int, default=5, help="n_I, samples that a feature is named by (%(default)s)")
    group.add_argument("--n-test", type=int, default=8, help="n_T, samples that are judged at most (%(default)s)")
    group.add_argument("--least", type=int, help="samples that make a feature activated (n_I + 1)")
    group.add_argument("--k", type=int, default=10, help="features of a token that count as activated (%(default)s)")
    group.add_argument("--magnitude", default="auto", help="burstiness, activation, rescaled or random (by the SAE's kind)")
    group.add_argument("--prior", default="evaluation", help="of burstiness: evaluation (this text's) or own (%(default)s)")
    group.add_argument("--keep", default="first", help="first samples, or a reservoir (%(default)s)")
    group.add_argument("--keep-usual", action="store_true", help="keep entries at their usual value too, as the paper does")
    group.add_argument("--features", type=int, nargs="*", help="only these")
    group.add_argument("--seed", type=int, default=0)
    group.add_argument("--device", default="cpu")


def _add_scores(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("scores")
    group.add_argument("--scores", nargs="*", default=[], help="detection, fuzzing, simulation: beside the ComSem score")
    group.add_argument("--at-a-time", type=int, default=1, help="samples a judging request (%(default)s, as the paper)")
    group.add_argument("--shuffled", type=int, default=8, help="samples of the shuffled control, 0 for none (%(default)s)")
    group.add_argument("--control", type=int, default=32, help="features of the random control, 0 for none (%(default)s)")
    group.add_argument("--calibrate", action="store_true", help="also by calibrated probabilities, where the server gives them")
    group.add_argument("--umap", action="store_true", help="maps of the three best and worst features (needs umap-learn)")
    group.add_argument("--name", default="BAE", help="in the figure (%(default)s)")


def _run(args: argparse.Namespace) -> int:
    from bae_lens.comsem.job import InterpretOptions, run_interpret
    from bae_lens.demo import demo_model_dir

    if args.text is None and args.model is not None:
        raise ValueError("give --text with --model: the embedded corpus belongs to the embedded Llama")
    left_out = {"run", "traceback"}
    options: dict[str, Any] = {name: value for name, value in vars(args).items() if name not in left_out}
    options["features"] = None if args.features is None else tuple(args.features)
    options["model"] = args.model or str(demo_model_dir())
    run_interpret(InterpretOptions(**options), _embedded_text if args.text is None else None)
    return 0


def _embedded_text() -> list[str]:
    """The embedded corpus, what models were not trained on first."""
    from bae_lens.demo.corpus import python_docs

    corpus = python_docs()
    return [*corpus.held_out, *corpus.train]
