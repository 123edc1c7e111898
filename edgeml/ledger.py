"""The ledger of a run: one JSON object a line, appended and flushed to disk, with a checksum per line.

A torn last line (power cut, ``kill -9``) is dropped on reading and on the next append; any other damage is refused.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from edgeml.errors import IntegrityError
from edgeml.records import to_json

Entry = dict[str, Any]


class Ledger:
    """Append entries to a file and read them back."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.entries: list[Entry] = []
        if path.exists():
            content = path.read_bytes()
            whole = content[: content.rfind(b"\n") + 1]
            if len(whole) < len(content):
                with path.open("r+b") as file:
                    file.truncate(len(whole))
            self.entries = list(_parsed(whole, path))

    def append(self, event: str, trial: str | None = None, **data: Any) -> Entry:
        """Write one entry; it is on disk when this returns."""
        entry = {"seq": len(self.entries), "time": datetime.now(UTC).isoformat(), "event": event, "trial": trial}
        entry.update(to_json(data))
        line = json.dumps(entry, allow_nan=True)
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f'{line[:-1]}, "crc32": {zlib.crc32(line.encode())}}}\n')
            file.flush()
            os.fsync(file.fileno())
        self.entries.append(entry)
        return entry

    def of(self, event: str) -> list[Entry]:
        """Return the entries of one kind, in order."""
        return [entry for entry in self.entries if entry["event"] == event]


def _parsed(content: bytes, path: Path) -> Iterator[Entry]:
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), 1):
        head, _, crc = line.rpartition(', "crc32": ')
        whole = crc.endswith("}") and str(zlib.crc32(f"{head}}}".encode())) == crc[:-1]
        entry: Entry = json.loads(f"{head}}}") if whole else {}
        if entry.get("seq") != number - 1:
            raise IntegrityError(
                f"{path}:{number}: the line does not match its checksum or its place; the ledger was changed or"
                " damaged. Start again with --overwrite."
            )
        yield entry
