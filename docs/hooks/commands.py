"""What `bae-lens COMMAND --help` says, as a page of the site."""

import os
from typing import Any

from mkdocs.structure.pages import Page

PAGE = "api/commands.md"
COLUMNS = "110"


def on_page_markdown(markdown: str, *, page: Page, **_: Any) -> str:
    """The page of commands with the help of each."""
    if page.file.src_uri != PAGE:
        return markdown
    from bae_lens.cli import build_parser

    os.environ["COLUMNS"] = COLUMNS  # argparse breaks lines there
    helps = (
        f"## bae-lens {name}\n\n````text\n{parser.format_help()}````\n" for name, parser in build_parser()[1].choices.items()
    )
    return "\n".join([markdown, *helps])
