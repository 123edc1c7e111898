"""What each field of a recipe allows: derived from the records, read by ``recipe_file``, published as JSON Schema.

    max_trials: int = rule(20, "networks to train", min=1)      edgeml.recipe
      → Field(kind=int, default=20, rules={"doc": …, "min": 1})
        → read("40") = 40    read("lots"), read("0"): None
        → "an integer >= 1"
        → {"type": "integer", "minimum": 1, "default": 20, "description": "networks to train"}

A new type of field is one line in ``_KINDS``, a new bound one line in ``_BOUNDS``.
"""

from __future__ import annotations

import dataclasses
import operator
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass
from fractions import Fraction
from typing import Any

from edgeml import plugins
from edgeml.records import Budget, Limit
from edgeml.strict_yaml import Node

BUDGET_RULES: Mapping[Any, Mapping[str, Mapping[str, Any]]] = {  # these records carry no metadata themselves
    Budget: {
        "params": {"doc": "scalars that inference needs", "min": 1},
        "macs": {"doc": "multiply-accumulates of one inference", "min": 1},
        "weight_bytes": {"doc": "bytes of weights, at the smallest precision of export.precision", "min": 1},
        "file_bytes": {"doc": "bytes of the largest file of export.targets and export.precision", "min": 1},
        "peak_activation_bytes": {"doc": "most bytes of activations alive at once, in int8", "min": 1},
        "arena_bytes": {"doc": "arena that TensorFlow Lite Micro needs for the int8 TFLite file", "min": 1},
        "latency": {"doc": "limits on the latency of one sample"},
    },
    Limit: {
        "device": {
            "doc": "host, or a device that `edgeml devices` lists",
            "pattern": r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}",
        },
        "runtime": {"doc": "what runs the file", "choices": ("onnxruntime", "litert", "vela", "cubeai")},
        "precision": {"doc": "which file", "choices": ("float32", "int8")},
        "max_ms": {"doc": "milliseconds per sample", "above": 0},
    },
}
_BOUNDS: Mapping[str, tuple[Callable[[Any, Any], bool], str, str]] = {  # rule -> check, sign, JSON Schema keyword
    "min": (operator.ge, ">=", "minimum"),
    "above": (operator.gt, ">", "exclusiveMinimum"),
    "max": (operator.le, "<=", "maximum"),
}
_FRACTION = r"[0-9]{1,7}/[1-9][0-9]{0,6}"
_FINEST = 10**6  # a decimal becomes the nearest fraction with a denominator up to this: 0.333333 is 1/3


def _read_bool(node: Node) -> bool | None:
    return node.value if isinstance(node.value, bool) else None


def _read_int(node: Node) -> int | None:
    value = int(node.value) if isinstance(node.value, float) and node.value.is_integer() else node.value
    return value if type(value) is int else None  # a bool is an int, too


def _read_number(node: Node) -> float | None:
    if type(node.value) not in (int, float):
        return None
    return float(node.value) + 0.0  # makes -0.0 a 0.0: equal recipes have equal hashes


def _read_text(node: Node) -> str | None:
    return node.value or None if isinstance(node.value, str) else None


def _read_fraction(node: Node) -> Fraction | None:
    if isinstance(node.value, str):
        return Fraction(node.value) if re.fullmatch(_FRACTION, node.value) else None
    number = _read_number(node)
    return None if number is None else Fraction(number).limit_denominator(_FINEST)


@dataclass(frozen=True)
class _Kind:
    """A scalar type: its name in messages, its JSON Schema, and how it reads a node (None: not of this kind)."""

    name: str
    schema: Mapping[str, Any]
    read: Callable[[Node], Any]


_KINDS: Mapping[Any, _Kind] = {
    bool: _Kind("true or false", {"type": "boolean"}, _read_bool),
    int: _Kind("an integer", {"type": "integer"}, _read_int),
    float: _Kind("a number", {"type": "number"}, _read_number),
    str: _Kind("text", {"type": "string", "minLength": 1}, _read_text),
    Fraction: _Kind(
        "a fraction like 1/2 or 0.5", {"type": ["number", "string"], "pattern": f"^{_FRACTION}$"}, _read_fraction
    ),
}


@dataclass(frozen=True)
class Field:
    """A field of a record: ``kind`` is a scalar type or a record, ``many`` a tuple of it, MISSING no default."""

    kind: Any
    many: bool
    optional: bool
    default: Any
    rules: Mapping[str, Any]

    @property
    def required(self) -> bool:
        """Whether every recipe must give it."""
        return self.default is MISSING

    @property
    def is_fixed(self) -> bool:
        """Whether it has a default that is the same in every recipe."""
        return self.default not in (MISSING, None) and not self.rules.get("follows", False)

    @property
    def words(self) -> list[Any] | None:
        """The only values allowed, if there is such a list."""
        if "plugin" in self.rules:
            return list(plugins.names(self.rules["plugin"]))
        return list(self.rules["choices"]) if "choices" in self.rules else None

    @property
    def fewest(self) -> int:
        """The least length of a list."""
        return int(self.rules.get("min_items", 0))

    @property
    def alone(self) -> bool:
        """Whether one item may stand for a list of one."""
        return self.many and self.fewest == 1

    def read(self, node: Node) -> Any:
        """Return the one value that ``node`` says, None if it is not allowed."""
        if node.value in self.rules.get("one_of", ()):
            return node.value
        value = _KINDS[self.kind].read(node)
        return value if value is not None and self._allows(value) else None

    def _allows(self, value: Any) -> bool:
        bounded = all(check(value, self.rules[rule]) for rule, (check, _, _) in _BOUNDS.items() if rule in self.rules)
        listed = (words := self.words) is None or value in words
        return bounded and listed and ("pattern" not in self.rules or bool(re.fullmatch(self.rules["pattern"], value)))

    def allowed(self) -> str:
        """Say what one value may be."""
        if self.words is not None:
            *most, last = map(str, self.words or ["nothing"])
            return f"{', '.join(most)} or {last}" if most else last
        bounds = [f"{sign} {self.rules[rule]:,.10g}" for rule, (_, sign, _) in _BOUNDS.items() if rule in self.rules]
        pattern = f"like {self.rules['pattern']}" if "pattern" in self.rules else ""
        beside = " ".join(f"or {word}" for word in self.rules.get("one_of", ()))
        return " ".join(part for part in (_KINDS[self.kind].name, " and ".join(bounds), pattern, beside) if part)

    def schema(self) -> dict[str, Any]:
        """Return the JSON Schema of its values."""
        one: dict[str, Any] = schema(self.kind) if dataclasses.is_dataclass(self.kind) else self._scalar_schema()
        several = {"type": "array", "items": one, "minItems": self.fewest, "uniqueItems": True}
        allowed = {"anyOf": [one, several]} if self.alone else several if self.many else one
        return {"anyOf": [allowed, {"type": "null"}]} if self.optional else allowed

    def _scalar_schema(self) -> dict[str, Any]:
        if self.words is not None:
            return {"enum": self.words}
        bounds = {keyword: self.rules[rule] for rule, (_, _, keyword) in _BOUNDS.items() if rule in self.rules}
        pattern = {"pattern": f"^(?:{self.rules['pattern']})$"} if "pattern" in self.rules else {}
        one = {**_KINDS[self.kind].schema, **bounds, **pattern}
        return {"anyOf": [one, {"enum": list(self.rules["one_of"])}]} if "one_of" in self.rules else one


def fields(cls: Any) -> Mapping[str, Field]:
    """Derive the fields of a record from its type hints, defaults and rules."""
    hints, table = typing.get_type_hints(cls), BUDGET_RULES.get(cls, {})
    return {
        field.name: _field(hints[field.name], field.default, table.get(field.name, field.metadata))
        for field in dataclasses.fields(cls)
    }


def _field(hint: Any, default: Any, rules: Mapping[str, Any]) -> Field:
    union = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    kind = union[0]  # float | str is a float: the texts are in one_of
    many = typing.get_origin(kind) is tuple
    return Field(typing.get_args(kind)[0] if many else kind, many, types.NoneType in union, default, rules)


def plain(value: Any) -> Any:
    """Return records, tuples and fractions as dicts, lists and ``"1/2"``.

    Keys that are None are left out; where the default follows from other keys, None has to be said.
    """
    if dataclasses.is_dataclass(value):
        pairs = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {
            field.name: plain(inner) for field, inner in pairs if inner is not None or field.metadata.get("follows")
        }
    if isinstance(value, tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Fraction):
        return int(value) if value.denominator == 1 else str(value)
    return value


def schema(cls: Any) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of a record."""
    return {
        "type": "object",
        "additionalProperties": False,
        "required": [name for name, field in fields(cls).items() if field.required],
        "properties": {
            name: {"description": field.rules["doc"]}
            | field.schema()
            | ({"default": plain(field.default)} if field.is_fixed else {})
            for name, field in fields(cls).items()
        },
    }
