"""Options of commands that read text, the source that they name, and the places of a sequence whose vectors are wanted."""

import argparse
from collections.abc import Sequence
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


def add_positions(parser: argparse.ArgumentParser, help: str) -> None:
    """The option of places, with spaces or commas between them; `positions_of` reads them."""
    parser.add_argument("--positions", nargs="+", default=["all"], metavar="PLACE", help=help)


def positions_of(words: Sequence[str]) -> str | list[int]:
    """The places that were asked for: "all", "last", or numbers.

    >>> positions_of(["1,2", "4"]), positions_of(["1", "2", "4"]), positions_of(["last"])
    ([1, 2, 4], [1, 2, 4], 'last')

    Raises:
        ValueError: If there is anything else.
    """
    places = [place for word in words for place in word.replace(",", " ").split()]
    if places in (["all"], ["last"]):
        return places[0]
    if not places or not all(place.isdecimal() for place in places):
        given = repr(" ".join(words))
        raise ValueError(f'--positions takes places as 1,2,4 or 1 2 4, or "all", or "last"; got {given}')
    return [int(place) for place in places]
