"""Draws every figure and table that the results below a directory allow, into one directory with a page that shows them all."""

import html
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from bae_lens.files import at_home, check_output_directory, check_writable, write_bytes, write_json, write_text
from bae_lens.pictures.interactive import chart_html
from bae_lens.pictures.static import chart_png, chart_svg
from bae_lens.report.figures.entries import ENTRIES, Drawn, Entry, Missing
from bae_lens.report.figures.results import find_results
from bae_lens.report.figures.tables import Table, shown
from bae_lens.version import __version__

LIST = "figures.json"
LIBRARY = "plotly.min.js"
"""Plotly's script, once for all pages."""
PAGE = "index.html"

STYLE = """\
:root { color-scheme: light dark }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem }
img { max-width: 100%; background: white; border: 1px solid #8884; border-radius: 4px }
.wide { overflow-x: auto }
table { border-collapse: collapse; font-size: 0.85rem }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid #8886; text-align: left; white-space: nowrap }
code { overflow-wrap: anywhere }
"""


class Shown(NamedTuple):
    """What became of a figure or table of the paper."""

    entry: Entry
    drawn: list[Drawn]
    reason: str
    """Why nothing was drawn; "" where something was."""


def draw_figures(root: str | Path, out: str | Path, say: Callable[[str], None] = print) -> list[Shown]:
    """Draws what is there; of each figure that cannot be drawn says why, and what would make its data.

    Each chart becomes NAME.png, NAME.svg and NAME.html (interactive, with plotly's script beside it), each table NAME.md and
    NAME.csv; index.html shows all of them, figures.json lists them.

    Args:
        root: A directory below which results lie.
        out: A directory that is not there yet, is empty, or holds figures already: then they are drawn again.

    Raises:
        FileNotFoundError: If there is no such directory of results.
        FileExistsError, PermissionError: If `out` holds something else, or cannot be written.
    """
    out = at_home(out).absolute()
    if (out / LIST).is_file():
        check_writable(out)
    else:
        check_output_directory(out)
    results: dict[str, list] = {}
    for found in find_results(root):
        results.setdefault(found.kind, []).append(found)
    write_json(out / LIST, {"bae_lens": __version__, "figures": []})
    every = []
    for entry in ENTRIES:
        one = draw_entry(entry, results)
        files = [name for drawn in one.drawn for name in write_drawn(drawn, out)]
        say(f"{entry.label}: {', '.join(files)}" if files else f"{entry.label}: {one.reason}")
        every.append(one)
    _write_library(out)
    listed = [
        {"label": one.entry.label, "files": [n for d in one.drawn for n in names_of(d)], "reason": one.reason} for one in every
    ]
    write_json(out / LIST, {"bae_lens": __version__, "figures": listed})
    write_text(out / PAGE, page(every))
    return every


def draw_entry(entry: Entry, results: dict[str, list]) -> Shown:
    """What can be drawn of an entry, or why nothing can."""
    try:
        return Shown(entry, [drawn._replace(name=_file_name(drawn.name)) for drawn in entry.draw(results)], "")
    except Missing:
        return Shown(entry, [], f"no results for it yet; they come of {entry.command}")
    except (ValueError, OSError) as error:  # one that cannot be read stops no other
        return Shown(entry, [], f"{error}; its results come of {entry.command}")
    except (LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError) as error:
        words = f"its results are not whole, or of an older version ({error!r})"
        return Shown(entry, [], f"{words}; run their command again: {entry.command}")


def _file_name(name: str) -> str:
    """A name that stays in its directory, whatever a results' file calls its hook point."""
    return re.sub(r"[/\\\0]", "-", name)[:200]


def names_of(drawn: Drawn) -> list[str]:
    """The files of a chart or table."""
    endings = ("md", "csv") if isinstance(drawn, Table) else ("png", "svg", "html")
    return [f"{drawn.name}.{ending}" for ending in endings]


def write_drawn(drawn: Drawn, out: Path) -> list[str]:
    """Writes the files of a chart or table; their names."""
    if isinstance(drawn, Table):
        write_text(out / f"{drawn.name}.md", drawn.markdown())
        write_text(out / f"{drawn.name}.csv", drawn.csv())
    else:
        write_bytes(out / f"{drawn.name}.png", chart_png(drawn))
        write_bytes(out / f"{drawn.name}.svg", chart_svg(drawn))
        write_text(out / f"{drawn.name}.html", chart_html(drawn, library=LIBRARY))
    return names_of(drawn)


def page(every: list[Shown]) -> str:
    """All of them on one page; what could not be drawn with its reason. Every text is escaped."""
    parts = [f"<h2>{html.escape(one.entry.label)}: {html.escape(one.entry.what)}</h2>\n{_body(one)}" for one in every]
    drawn = sum(bool(one.drawn) for one in every)
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>Figures and tables</title><style>{STYLE}</style>\n"
        f"<h1>Figures and tables of the paper, from these runs</h1>\n<p>{drawn} of {len(every)} could be drawn. An entropy "
        "means nothing without the FVU that it buys: markers are as opaque as 1 - FVU, and interactive pictures say both.</p>\n"
        + "\n".join(parts)
        + "\n</html>\n"
    )


def _body(one: Shown) -> str:
    if not one.drawn:
        return f"<p><code>{html.escape(one.reason)}</code></p>"
    return "\n".join(_table(drawn) if isinstance(drawn, Table) else _picture(drawn.name, drawn.title) for drawn in one.drawn)


def _picture(name: str, title: str) -> str:
    stem, alt = quote(name), html.escape(title)  # a directory may be called "50%" or "#2"
    links = f'<a href="{stem}.html">interactive</a>, <a href="{stem}.svg">SVG</a>'
    return f'<p><img src="{stem}.png" alt="{alt}" loading="lazy"><br>{alt} ({links})</p>'


def _table(table: Table) -> str:
    head = "".join(f"<th>{html.escape(name)}</th>" for name in table.heads)
    rows = "".join("<tr>" + "".join(f"<td>{html.escape(shown(value))}</td>" for value in row) + "</tr>\n" for row in table.rows)
    return f'<div class="wide"><table><tr>{head}</tr>\n{rows}</table></div>\n<p>{html.escape(table.note)}</p>'


def _write_library(out: Path) -> None:
    from plotly.offline import get_plotlyjs

    write_text(out / LIBRARY, get_plotlyjs())
