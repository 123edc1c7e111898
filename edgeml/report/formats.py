"""Figures as text: thin separators, accuracies with their interval, a dash for what is not known."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from jinja2 import Undefined
from markupsafe import Markup

DASH = "–"
THIN = "\u202f"  # narrow no-break space
MARKDOWN = re.compile(r"([\\`*\[\]<>|#!&~])")


def known(value: Any) -> bool:
    """Tell whether there is a value to print: ``None``, undefined and NaN are none."""
    if value is None or isinstance(value, Undefined):
        return False
    return not (isinstance(value, float) and not math.isfinite(value))


def or_dash(function: Callable[..., str]) -> Callable[..., str]:
    """Print a dash where the first argument is not known."""

    def safe(value: Any, *rest: Any, **named: Any) -> str:
        return function(value, *rest, **named) if known(value) else DASH

    return safe


@or_dash
def integer(value: float) -> str:
    """``12345`` → ``12 345``."""
    return f"{round(value):,}".replace(",", THIN)


@or_dash
def percent(value: float, digits: int = 1) -> str:
    """``0.9889`` → ``98.9 %``."""
    return f"{100 * value:.{digits}f} %"


@or_dash
def accuracy(value: float, interval: Any = None) -> Markup:
    """``0.9889, (0.974, 0.996)`` → ``98.9 % [97.4, 99.6]``."""
    if not known(interval):
        return Markup(percent(value))  # noqa: S704  (digits, here and below: brackets need no escape)
    low, high = interval
    return Markup(f"{percent(value)} [{100 * low:.1f}, {100 * high:.1f}]")  # noqa: S704


@or_dash
def milliseconds(value: float) -> str:
    """``0.02134`` → ``0.0213 ms``."""
    return f"{figure(value)} ms"


def batch(size: Any) -> str:
    """``4`` → ``a batch of 4``; ``1``, or what is not known → ``one sample``."""
    return f"a batch of {size}" if known(size) and size != 1 else "one sample"


def if_batch(size: Any) -> str:
    """``4`` → ``, a batch of 4``; nothing for one sample: what stands behind a latency."""
    return f", {batch(size)}" if known(size) and size != 1 else ""


@or_dash
def figure(value: float, digits: int = 3) -> str:
    """Three significant digits: ``1234.5`` → ``1 234``, ``0.02134`` → ``0.0213``, ``3.2e-7`` → ``3.2e-7``."""
    if isinstance(value, int) or abs(value) >= 10**digits:
        return integer(value)
    if value == 0 or abs(value) >= 1e-3:
        return f"{value:#.{digits}g}".rstrip(".") if value else "0"
    mantissa, _, exponent = f"{value:.{digits - 2}e}".partition("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


@or_dash
def span(interval: Sequence[float]) -> Markup:
    """``(0.0208, 0.0213)`` → ``[0.0208, 0.0213]``."""
    return Markup(f"[{figure(interval[0])}, {figure(interval[1])}]")  # noqa: S704


@or_dash
def points(value: float) -> str:
    """``-0.281`` → ``−0.28``, ``0.5`` → ``+0.50``."""
    return f"{round(value, 2) + 0.0:+.2f}".replace("-", "−")  # no −0.00


@or_dash
def seconds(value: float) -> str:
    """``75.2`` → ``1 min 15 s``; below a minute with one decimal."""
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    return f"{minutes} min {rest:02d} s"


@or_dash
def plain(value: Any) -> str:
    """Any leaf or list of the environment as one line."""
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(plain(one) for one in value)
    return str(value)


@or_dash
def shape(value: Sequence[int]) -> str:
    """``[8, 8, 1]`` → ``8 × 8 × 1``."""
    return " × ".join("?" if one is None else str(one) for one in value)


def polyline(values: Sequence[float]) -> str:
    """``[0, 1, 0.5]`` → ``0.0,38.0 50.0,2.0 100.0,20.0``: a line from left to right in a box of 100 x 40."""
    step = 100 / max(1, len(values) - 1)
    return " ".join(f"{place * step:.1f},{38 - 36 * value:.1f}" for place, value in enumerate(values))


def markdown(value: Any) -> Any:
    """Escape a value for running Markdown text; numbers and what is Markup already stay."""
    if not known(value):
        return DASH
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return Markup(MARKDOWN.sub(r"\\\1", re.sub(r"[^\S\u202f]+", " ", value)))  # noqa: S704  (escaped in this very line)


def code(value: str) -> Markup:
    """Set a name as Markdown code; a backtick or a bar inside would end it."""
    return Markup("`" + " ".join(value.replace("`", "'").replace("|", "/").split()) + "`")  # noqa: S704  (as above)


@or_dash
def choices(hyperparameters: Mapping[str, Any]) -> str:
    """``{"space": "ds_cnn", "ds_cnn/depth": 2, "ds_cnn/rate": 0.00512345}`` → ``depth 2, rate 0.00512``."""
    return ", ".join(
        f"{name.partition('/')[2] or name} {figure(value) if isinstance(value, float) else plain(value)}"
        for name, value in hyperparameters.items()
        if name != "space"
    )


@or_dash
def sentence(text: str) -> str:
    """Begin with a capital and end with a full stop: ``it beats the other`` → ``It beats the other.``."""
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


FILTERS: dict[str, Callable[..., Any]] = {
    "choices": choices,
    "code": code,
    "integer": integer,
    "percent": percent,
    "accuracy": accuracy,
    "ms": milliseconds,
    "batch": batch,
    "if_batch": if_batch,
    "figure": figure,
    "span": span,
    "seconds": seconds,
    "plain": plain,
    "sentence": sentence,
    "shape": shape,
    "points": points,
    "polyline": polyline,
}
