"""Hyper-parameters that are given, not searched: what a space reads its values from when only the cost is asked.

KerasTuner's ``HyperParameters`` records every entry with its conditions as a space reads it, which takes milliseconds
for a network. ``Given`` answers the same calls from a dict, in the same words: the value that is given, else the
default; None where a condition is not met.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any


class Given:
    """Reads like a ``keras_tuner.HyperParameters`` with ``values``; it knows values and conditions, but no ranges."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self._prefix = ""
        self._is_active = True

    # The methods bear KerasTuner's names, hence N802.

    def Choice(  # noqa: N802
        self, name: str, values: Sequence[Any], ordered: bool | None = None, default: Any = None, **parent: Any
    ) -> Any:
        """Return one of ``values``; the first is the default."""
        return self._value(name, values[0] if default is None else default, **parent)

    def Int(  # noqa: N802
        self,
        name: str,
        min_value: int,
        max_value: int,
        step: int | None = None,
        sampling: str = "linear",
        default: int | None = None,
        **parent: Any,
    ) -> Any:
        """Return an integer; ``min_value`` is the default."""
        return self._value(name, int(min_value) if default is None else default, **parent)

    def Float(  # noqa: N802
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: float | None = None,
        sampling: str = "linear",
        default: float | None = None,
        **parent: Any,
    ) -> Any:
        """Return a number; ``min_value`` is the default."""
        return self._value(name, float(min_value) if default is None else default, **parent)

    def Boolean(self, name: str, default: bool = False, **parent: Any) -> Any:  # noqa: N802
        """Return True or False."""
        return self._value(name, default, **parent)

    def Fixed(self, name: str, value: Any, **parent: Any) -> Any:  # noqa: N802
        """Return ``value``."""
        return self._value(name, value, **parent)

    def get(self, name: str) -> Any:
        """Return a value that is given or was read before."""
        return self.values[self._prefix + name]

    __getitem__ = get

    def __contains__(self, name: str) -> bool:
        return self._prefix + name in self.values

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Put ``name/`` in front of the names within."""
        before, self._prefix = self._prefix, f"{self._prefix}{name}/"
        try:
            yield
        finally:
            self._prefix = before

    @contextmanager
    def conditional_scope(self, parent_name: str, parent_values: Sequence[Any]) -> Iterator[None]:
        """Answer None within, unless ``parent_name`` has one of ``parent_values``."""
        before, self._is_active = self._is_active, self._is_active and self._meets(parent_name, parent_values)
        try:
            yield
        finally:
            self._is_active = before

    def _meets(self, parent_name: str, parent_values: Any) -> bool:
        name = self._prefix + parent_name
        allowed = parent_values if isinstance(parent_values, (list, tuple, set)) else [parent_values]
        return name in self.values and self.values[name] in allowed

    def _value(self, name: str, default: Any, parent_name: str | None = None, parent_values: Any = None) -> Any:
        if not self._is_active or (parent_name and not self._meets(parent_name, parent_values)):
            return None
        return self.values.setdefault(self._prefix + name, default)
