"""Formulas as MathML when the site is built: a reader's browser draws them, and no script is fetched."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

INLINE = re.compile(r'<span class="arithmatex">\\\((.*?)\\\)</span>', re.DOTALL)
DISPLAY = re.compile(r'<div class="arithmatex">\\\[(.*?)\\\]</div>', re.DOTALL)


def on_page_content(content: str, **_: Any) -> str:
    """What `pymdownx.arithmatex` has marked, converted."""
    content = DISPLAY.sub(lambda found: convert(html.unescape(found[1]), display="block"), content)
    return INLINE.sub(lambda found: convert(html.unescape(found[1])), content)
