"""The page: one HTML file with its own style, script and data, which fetches nothing and runs nothing else.

A Content-Security-Policy allows the page's own style and script by their hashes and forbids the rest, scripts that a text might
smuggle in too. Texts become nodes by `textContent` only.
"""

import base64
import hashlib
from collections.abc import Mapping
from importlib.resources import files
from string import Template
from typing import Any

import numpy as np

from bae_lens.report.packing import pack

SCRIPTS = ("unpack", "dom", "text", "charts", "data", "overview", "curves", "map", "rows", "table", "feature", "app")
"""The parts of the script, in their order."""
STYLES = ("base", "views")


def page_html(values: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> str:
    """The whole file.

    Raises:
        TypeError, ValueError: As `pack`.
    """
    style, script = page_style(), page_script()
    policy = (
        f"default-src 'none'; script-src '{_hash(script)}'; style-src '{_hash(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
    )
    template = Template(_part("page.html"))
    return template.substitute(policy=policy, style=style, script=script, data=pack(values, arrays))


def page_script() -> str:
    """The script of the page, in a scope of its own."""
    parts = (_part(f"{name}.js") for name in SCRIPTS)
    return '(() => {\n"use strict";\n' + "\n".join(parts) + "\n})();"


def page_style() -> str:
    """The style sheet of the page."""
    return "\n".join(_part(f"{name}.css") for name in STYLES)


def _part(name: str) -> str:
    return (files("bae_lens.report") / "page" / name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode("ascii")
