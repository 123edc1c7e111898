"""Bundles whose sums fit what they should not hold: only what is computed tells."""

import contextlib

from edgeml import bundle


@contextlib.contextmanager
def resealed(place, name, content):
    """Put another file into a bundle, with a manifest and sums that fit; take it back."""
    kept = {file: (place / file).read_bytes() for file in (name, "manifest.json", "SHA256SUMS")}
    sums = kept["SHA256SUMS"].decode()
    try:
        (place / name).write_bytes(content)
        manifest = kept["manifest.json"].decode()
        was = next(line.split()[0] for line in sums.splitlines() if line.endswith(f"  {name}"))
        assert was in manifest
        (place / "manifest.json").write_text(manifest.replace(was, bundle.sha256(place / name)))
        names = [line.split("  ")[1] for line in sums.splitlines()]
        (place / "SHA256SUMS").write_text("".join(f"{bundle.sha256(place / one)}  {one}\n" for one in names))
        yield
    finally:
        for file, before in kept.items():
            (place / file).write_bytes(before)
