"""Matplotlib drawings as SVG for a page: the page's own colours and font, no ids that clash, the same bytes every time.

Each colour is drawn as a stand-in that becomes a CSS variable, so a plot follows the page into dark mode and print:
``fill: #010203`` → ``fill: var(--ink)``.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from markupsafe import Markup, escape

from edgeml.report.formats import plain

INK, MUTED, ACCENT, LINE, PAPER, WARN = "#010203", "#010204", "#010205", "#010206", "#010207", "#010208"
VARIABLES = {INK: "ink", MUTED: "muted", ACCENT: "accent", LINE: "line", PAPER: "paper", WARN: "warn"}
WIDTH_INCHES = 5.0  # 360 px: text keeps its size on a phone
MAX_LABEL = 26
DOT_PX = 4  # half the size of a dot, where no name may lie
PLACES = ((7, 5), (7, -11), (-7, 5), (-7, -11), (7, 17), (-7, -23))  # of a name, in points from its dot

STYLE = {
    "svg.fonttype": "none",  # text stays text: small, and in the page's font
    "text.parse_math": False,  # a class called $x$ is a name, not a formula
    "font.size": 9,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.titlecolor": INK,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "legend.labelcolor": MUTED,
}


def draw(name: str, title: str, paint: Callable[[Any], None], *, height: float = 3.1) -> Markup:
    """Let ``paint`` draw on axes of the page's width; return the SVG element, with ``title`` for those who listen."""
    import matplotlib as mpl
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A class name in a script that the bundled font lacks is only measured with it; the reader's font draws it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
        FigureCanvasAgg(figure)  # measures texts while the plot is made
        paint(figure.subplots())
        figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return inlined(buffer.getvalue(), name, title)


def name_points(
    axes: Any,
    points: Sequence[tuple[float, float, Any]],
    *,
    places: Sequence[tuple[int, int]] = PLACES,
    others: Sequence[tuple[float, float, Any]] = (),
) -> None:
    """Write each name beside its point, at the first of ``places`` where it covers no other name or point."""
    from matplotlib.transforms import Bbox

    axes.figure.draw_without_rendering()  # settles the layout that the names are placed in
    renderer = axes.figure.canvas.get_renderer()
    bounds = axes.get_window_extent(renderer)
    dots = [(*axes.transData.transform((x, y)), size) for some, size in ((points, DOT_PX), (others, 2 * DOT_PX))
            for x, y, _ in some]  # fmt: skip
    taken = [Bbox.from_extents(x - size, y - size, x + size, y + size) for x, y, size in dots]
    for x, y, name in points:
        for dx, dy in places:
            text = axes.annotate(
                short(name), (x, y), (dx, dy), textcoords="offset points", ha="left" if dx > 0 else "right"
            )
            box = text.get_window_extent(renderer)
            if bounds.x0 < box.x0 and box.x1 < bounds.x1 and not any(box.overlaps(other) for other in taken):
                break
            if (dx, dy) != places[-1]:
                text.remove()
        taken.append(box)


def inlined(document: str, name: str, title: str) -> Markup:
    """Turn an SVG document (texts already escaped by its writer) into an element of a page."""
    body = document[document.index("<svg") :]
    body = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    box = re.search(r'viewBox="([^"]+)"', body)
    opening = f'<svg viewBox="{box[1] if box else ""}" role="img" aria-label="{escape(title)}">'
    body = opening + body[body.index(">") + 1 :]
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', body))
    body = re.sub(r"<[^>]+>", lambda match: own_tag(match[0], name, used), body)
    return Markup(re.sub(r"\s*\n\s*", " ", body).strip())  # noqa: S704  (matplotlib escapes texts; a test holds it to it)


def own_tag(tag: str, name: str, used: set[str]) -> str:
    """Give one tag the page's colours, and ids of its own (unused ones go: they would clash between plots)."""
    tag = re.sub(r' id="([^"]+)"', lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "", tag)
    tag = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", tag)
    return re.sub(r"#[0-9a-f]{6}\b", lambda match: colour(match[0]), tag)


def colour(stand_in: str) -> str:
    """Return the CSS variable behind a stand-in."""
    return f"var(--{VARIABLES[stand_in]})" if stand_in in VARIABLES else stand_in


def short(text: Any, most: int = MAX_LABEL) -> str:
    """Cut a name to what fits beside a plot."""
    one_line = " ".join(plain(text).split())
    return one_line if len(one_line) <= most else one_line[: most - 1] + "…"


def compact(value: float, _position: int = 0) -> str:
    """Write a tick: ``12500`` → ``12.5 k``."""
    for size, unit in ((1e9, "\u202fG"), (1e6, "\u202fM"), (1e3, "\u202fk")):
        if abs(value) >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"
