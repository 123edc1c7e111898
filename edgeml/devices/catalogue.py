"""Which devices there are: ``host``, those whose profiles ship here as TOML files, and the user's own.

edgeml/devices/NAME.toml                   ours
~/.config/edgeml/devices/NAME.toml         a user's own (``edgeml devices fit``)
~/.cache/edgeml/devices/host-….toml        this machine, by runtime, precision and key (``edgeml devices calibrate``)
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgeml import machine
from edgeml.devices import profile
from edgeml.devices.profile import Profile
from edgeml.errors import UsageError
from edgeml.plugins import did_you_mean
from edgeml.records import Limit

HOST = "host"
TIMED = ("float32", "int8")  # precisions that profiles are of
ELSEWHERE = ("cpu", "flags", "runtime_version")  # of a key: where these differ, a profile is of another machine


def own_folder() -> Path:
    """Return where a user's own profiles lie."""
    return machine.settings_folder() / "devices"


def paths() -> dict[str, Path]:
    """Return the profiles that ship and the user's own, by name; a user's own come before ours."""
    folders = (Path(__file__).parent, own_folder())
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}


def names() -> list[str]:
    """List every device."""
    return [HOST, *sorted(paths())]


def get(name: str) -> Profile:
    """Return the profile of a device other than the host.

    Raises:
        UsageError: there is no such device.
        DataError: its file is no profile.
    """
    found = paths()
    if name not in found:
        near = did_you_mean(name, names())
        raise UsageError(
            f"device '{name}': not known; there are {', '.join(names())}.{near} `edgeml devices kit` makes one's own."
        )
    return profile.read(found[name])


def check(limit: Limit) -> None:
    """Refuse a latency limit that nothing could ever be held against.

    Raises:
        UsageError: an unknown device, a runtime or precision that its profile is not of, or an extra that is missing.
    """
    if limit.precision not in TIMED:
        raise UsageError(
            f"latency limit on {limit.where}: precision '{limit.precision}'; {' and '.join(TIMED)} are predicted and"
            " judged. Ask for one of them; `edgeml benchmark` measures the others."
        )
    if limit.device == HOST:
        if limit.runtime not in ("onnxruntime", "litert"):
            raise UsageError(f"device host: runs onnxruntime and litert; the budget asks for {limit.runtime}.")
        return
    found = get(limit.device)
    if (found.runtime, found.precision) != (limit.runtime, limit.precision):
        raise UsageError(
            f"device {limit.device}: its profile is of {found.runtime} {found.precision}; the budget asks for"
            f" {limit.runtime} {limit.precision}. Ask for that, or make a profile with `edgeml devices kit`."
        )
    if found.judge == "vela":
        from edgeml.devices import vela

        vela.version()


def of_host(runtime: str, precision: str, key: Mapping[str, Any]) -> Path:
    """Return where the profile of this machine with this key lies, or would."""
    canonical = json.dumps(key, sort_keys=True, separators=(",", ":")).encode()
    digest = hashlib.sha256(canonical).hexdigest()[:12]
    return _cache() / f"{HOST}-{runtime}-{precision}-{digest}.toml"


def of_hosts() -> list[Path]:
    """List the host profiles in the cache: of this machine, or of others that share the folder."""
    return sorted(_cache().glob(f"{HOST}-*.toml"))


def check_is_here(found: Profile, key: Mapping[str, Any]) -> None:
    """Refuse a host profile of another processor or runtime version; ``key`` is what holds here.

    Raises:
        UsageError: it is one.
    """
    other = [name for name in ELSEWHERE if found.key.get(name) != key.get(name)]
    if other:
        raise UsageError(
            f"device host: the profile is of {found.key.get(other[0])} ({other[0]}); here it is {key.get(other[0])}."
            " Run `edgeml devices calibrate RECIPE`."
        )


def _cache() -> Path:
    return machine.cache_folder() / "devices"
