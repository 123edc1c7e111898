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
LOG_FROM = 12  # an axis that spans more than this ratio is logarithmic
DOT_PX, DIAMOND_PX = 4, 6  # half the size of a mark, where no name may lie
OUTSIDE = 1000  # names and points that a name would rather cover than be cut
PLACES = (
    (7, 5),
    (7, -11),
    (-7, 5),
    (-7, -11),
    (7, 16),
    (-7, -22),
    (-7, 16),
    (7, -22),
    (7, 27),
    (-7, 27),
    (7, -33),
)  # of a name, in points from its dot

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
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    buffer = io.StringIO()
    with mpl.rc_context({**STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        # A class name in a script that the bundled font lacks is only measured with it; the reader's font draws it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained", dpi=72)  # a point is a pixel
        FigureCanvasAgg(figure)  # measures texts while the plot is made
        paint(figure.subplots())
        settle(figure)
        FigureCanvasSVG(figure).print_svg(buffer, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return inlined(buffer.getvalue(), name, title)


def settle(figure: Any) -> None:
    """Lay the figure out, once: ``savefig`` would do it twice, which is most of the time that a plot takes."""
    figure.get_layout_engine().execute(figure)
    figure.set_layout_engine("none")  # a placeholder, which does nothing


def scale(axes: Any, values: Sequence[float]) -> None:
    """Choose a linear or logarithmic x axis, with short ticks."""
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    low, high = min(values), max(values)
    if low > 0 and high / low > LOG_FROM:
        axes.set_xscale("log")
        axes.set_xlim(low / 1.4, high * 1.4)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
    else:
        axes.set_xlim(0, high * 1.12 or 1)
        axes.xaxis.set_major_locator(MaxNLocator(6, steps=(1, 2, 5, 10)))
    axes.xaxis.set_major_formatter(FuncFormatter(compact))


def name_points(
    axes: Any,
    points: Sequence[tuple[float, float, Any]],
    *,
    places: Sequence[tuple[int, int]] = PLACES,
    others: Sequence[tuple[float, float, Any]] = (),
) -> None:
    """Write each name beside its point, at the place where it covers fewest other names and points.

    To be called last: what is drawn later finds no room. Of places alike the first of ``places`` is taken.
    """
    from matplotlib.transforms import Bbox

    settle(axes.figure)  # the layout that the names are placed in
    renderer = axes.figure.canvas.get_renderer()
    bounds = axes.get_window_extent(renderer)
    dots = [(*axes.transData.transform((x, y)), size) for some, size in ((points, DOT_PX), (others, DIAMOND_PX))
            for x, y, _ in some]  # fmt: skip
    taken = [Bbox.from_extents(x - size, y - size, x + size, y + size) for x, y, size in dots]
    for x, y, name in points:
        text = axes.annotate(short(name), (x, y), (0, 0), textcoords="offset points")
        worst = []
        for dx, dy in places:
            text.set(position=(dx, dy), ha="left" if dx > 0 else "right")
            box = text.get_window_extent(renderer)
            worst.append(OUTSIDE * is_cut(box, bounds) + sum(box.overlaps(other) for other in taken))
            if not worst[-1]:
                break
        dx, dy = places[worst.index(min(worst))]
        text.set(position=(dx, dy), ha="left" if dx > 0 else "right")
        taken.append(text.get_window_extent(renderer))


def is_cut(box: Any, bounds: Any) -> bool:
    """Tell whether a part of a box lies outside of another."""
    return bool(box.x0 < bounds.x0 or bounds.x1 < box.x1 or box.y0 < bounds.y0 or bounds.y1 < box.y1)


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
