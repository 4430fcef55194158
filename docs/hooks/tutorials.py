"""The notebooks of tutorials/ as pages of the site: text, code, and what the cells printed."""

import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

STYLE = re.compile(r"<style.*?</style>|\n\s*", re.DOTALL)
"""A page's own style serves its tables; a blank line would end the HTML."""
NOTEBOOKS = Path(__file__).parents[2] / "tutorials"


def on_files(files: Files, *, config: MkDocsConfig, **_: Any) -> Files:
    """Adds a page for each notebook."""
    for path in sorted(NOTEBOOKS.glob("[0-9]_*.ipynb")):
        page = page_of(nbformat.read(path, as_version=4))
        files.append(File.generated(config, f"tutorials/{path.stem}.md", content=page))
    return files


def page_of(notebook: nbformat.NotebookNode) -> str:
    """A notebook as Markdown; links between notebooks lead to their pages."""
    parts = []
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(re.sub(r"\((\w+)\.ipynb\)", r"(\1.md)", cell.source))
        elif cell.source.strip():
            parts.append(f"````python\n{cell.source}\n````")
            parts += [shown for output in cell.outputs if (shown := output_of(output))]
    return "\n\n".join(parts) + "\n"


def output_of(output: nbformat.NotebookNode) -> str:
    """What a cell left: a picture, a table, or text."""
    if output.output_type == "stream":
        return f"````text\n{output.text.rstrip()}\n````"
    data = output.get("data", {})
    if "image/png" in data:
        return f'<img alt="What the cell above draws" src="data:image/png;base64,{"".join(data["image/png"].split())}">'
    if "text/markdown" in data:
        return data["text/markdown"]
    if "text/html" in data:
        table = STYLE.sub("", data["text/html"])
        return f'<div class="cell-output">{table}</div>'
    return f"````text\n{data['text/plain']}\n````" if "text/plain" in data else ""
