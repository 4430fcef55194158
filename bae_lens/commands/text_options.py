"""Options of commands that read text, and the source that they name."""

import argparse
from typing import Any


def add_text_options(parser: argparse.ArgumentParser) -> None:
    """The options that say where text comes from."""
    parser.add_argument(
        "--text",
        help="text file (a document a line, or JSON Lines), directory or hub name of a dataset (default: the embedded corpus)",
    )
    parser.add_argument("--text-column", default="text", help="where the text is in a row or JSON object (%(default)s)")
    parser.add_argument("--text-split", default="train", help="split of a dataset (%(default)s)")
    parser.add_argument("--text-config", help="configuration of a dataset that has several")


def text_of(args: argparse.Namespace) -> Any:
    """The source of the text that was asked for.

    Raises:
        FileNotFoundError, ValueError: As `text_source`; if a model was given without text.
    """
    from bae_lens.activations.sources import text_source
    from bae_lens.demo.corpus import python_docs

    if args.text is not None:
        return text_source(args.text, column=args.text_column, split=args.text_split, config=args.text_config)
    if args.model is not None:
        raise ValueError("give --text with --model: the embedded corpus belongs to the embedded Llama")
    corpus = python_docs()
    return text_source([*corpus.train, *corpus.held_out])._replace(name="the embedded corpus")
