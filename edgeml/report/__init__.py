"""The pages about a bundle, drawn from ``report.json``: an HTML report and a model card.

    report.json ─► views (what each section shows) ─┬─► plots (matplotlib SVG) ─► page.html.j2 ─► report.html
                                                    └─► card.md.j2 ─────────────────────────────► README.md

A page is one file: no script, nothing fetched, every text from outside escaped. A figure that is not there prints as
a dash; a section without data is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from edgeml.report import pages


def html(report: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML page."""
    return pages.html_page(report)


def model_card(report: Mapping[str, Any]) -> str:
    """Return the README.md of the bundle, with Hugging Face front matter."""
    return pages.card(report)
