"""``python -m edgeml``: the command ``edgeml`` where its script is not on the path."""

from __future__ import annotations

from edgeml.cli import main

if __name__ == "__main__":
    main()
