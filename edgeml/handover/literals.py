r"""Texts and numbers as literals of a language: what is in a text can end neither the literal nor the line.

Python       repr
JavaScript   JSON; `<`, U+2028 and U+2029 escaped, so that it may stand in HTML, too
C++          the bytes of UTF-8, all but plain ones as three octal digits; `?`, too, which could start a trigraph
Kotlin       quotes, backslashes and `$` behind a backslash; what does not print as \uXXXX
Swift        quotes and backslashes behind a backslash; what does not print as \u{X}
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any


def python(value: Any) -> str:
    """Return a Python literal."""
    return repr(_sound(value))


def javascript(value: Any) -> str:
    """Return a JavaScript literal that may also stand in HTML."""
    text = json.dumps(_sound(value), ensure_ascii=False, allow_nan=False)
    for mark in "<\u2028\u2029":
        text = text.replace(mark, f"\\u{ord(mark):04x}")
    return text


def cpp(value: str) -> str:
    """Return a C++ string literal of the text's UTF-8 bytes."""
    return f'"{"".join(_octal(byte) for byte in _sound(value).encode())}"'


def kotlin(value: str) -> str:
    """Return a Kotlin string literal."""
    return _quoted(value, '"\\$', lambda unit: f"\\u{unit:04x}", "utf-16-be", 2)


def swift(value: str) -> str:
    """Return a Swift string literal."""
    return _quoted(value, '"\\', lambda unit: f"\\u{{{unit:x}}}", "utf-32-be", 4)


def real(value: float) -> str:
    """Return a number that every language reads as a real one."""
    return repr(float(value))


def _sound(value: Any) -> Any:
    """Replace halves of surrogate pairs, which no file can hold."""
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, (list, tuple)):
        return type(value)(_sound(one) for one in value)
    return {key: _sound(one) for key, one in value.items()} if isinstance(value, dict) else value


def _octal(byte: int) -> str:
    is_plain = 0x20 <= byte < 0x7F and chr(byte) not in '"\\?'
    return chr(byte) if is_plain else f"\\{byte:03o}"


def _quoted(value: str, escaped: str, control: Callable[[int], str], units: str, size: int) -> str:
    """Quote a text; what does not print is ``control`` of each of its units of ``size`` bytes."""
    made = []
    for mark in _sound(value):
        if mark.isprintable():
            made.append(f"\\{mark}" if mark in escaped else mark)
            continue
        coded = mark.encode(units)
        made += [control(int.from_bytes(coded[i : i + size], "big")) for i in range(0, len(coded), size)]
    return f'"{"".join(made)}"'


LITERALS: dict[str, Callable[[Any], str]] = {
    "python": python, "javascript": javascript, "cpp": cpp, "kotlin": kotlin, "swift": swift, "real": real,
}  # fmt: skip
