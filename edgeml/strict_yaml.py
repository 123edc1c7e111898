r"""YAML without surprises: text → a tree of values that know where they stand, and back.

PyYAML only cuts the text into events; what they mean is decided here, after the YAML 1.2 core schema
(yaml.org/spec/1.2.2, 10.3.2). PyYAML's own YAML 1.1 reads ``no`` as false, ``010`` as 8, ``1:30`` as 90 and ``1e-3``
as text. Here:

    null   ``null``, ``~``, nothing            bool   ``true``, ``false`` (also ``True``, ``TRUE``, …)
    int    ``30000``, ``30_000``               float  ``0.5``, ``1e-3``, ``.5``
    text   everything else: ``yes``, ``on``, ``007``, ``0x1F``, ``1:30``, ``2026-11-22``, ``.nan``

Refused: a key given twice, aliases, anchors, tags, keys that are not text, a second document, control characters and
line breaks within texts, more than 1 MiB, more than 20 levels. Nothing here builds an object other than those above.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from edgeml.errors import RecipeError

MAX_BYTES = 2**20
MAX_DEPTH = 20
MAX_NUMBER_LENGTH = 40  # int() refuses 4,301 digits, float() overflows at 10**309: no figure of a recipe comes near

_WHOLE = r"(?:0|[1-9][0-9]*(?:_[0-9]+)*)"
_INT = re.compile(rf"[-+]?{_WHOLE}")
_FLOAT = re.compile(rf"[-+]?(?:{_WHOLE}(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]+)?")  # integers too: ask _INT first
_WORDS = {"": None, "~": None} | {
    spelled: value
    for word, value in (("null", None), ("true", True), ("false", False))
    for spelled in (word, word.capitalize(), word.upper())
}
_NOT_IN_TEXT = {  # Unicode categories
    "Cc": "a control character or line break",
    "Cs": "half a character",
    "Zl": "a line break",
    "Zp": "a line break",
}
_HINTS = {  # part of PyYAML's message -> what to do
    r"'\t'": "Use spaces instead of tabs",
    "mapping values are not allowed": "Align the keys, and quote text that contains ': '",
    "could not find expected ':'": "Write 'key: value', with a space after the colon",
    "special characters are not allowed": "Save the file as plain UTF-8 text",
}


@dataclass(frozen=True)
class Node:
    """A value and where it stands.

    ``value``: None, bool, int, float, str, list of Node, or dict of str to Node. ``text``: a scalar as written.
    ``where`` and ``line``: the file and the line of its key, or of itself if it has no key; line 0 where the text has
    no lines to speak of. ``path``: ``search.space[0]``, empty at the top.
    """

    value: Any
    text: str
    where: str
    line: int
    path: str

    def error(self, message: str) -> RecipeError:
        """Return an error that starts with the place of this node."""
        return RecipeError(": ".join(part for part in (_place(self.where, self.line), self.path, message) if part))


def shown(text: str, most: int = 60) -> str:
    """Return ``text`` fit for a message: one line, no control characters, not long."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(" " if unicodedata.category(char) in _NOT_IN_TEXT else char for char in cut)


def load(raw: bytes | str, where: str, lines: bool = True, path: str = "") -> Node:
    """Parse one document.

    Args:
        raw: the text, or its bytes in UTF-8.
        where: what errors call it: a file name, to which they add the line unless ``lines`` is false.
        lines: whether lines and columns mean something to the reader.
        path: the path of the top node.

    Raises:
        RecipeError: not UTF-8, not YAML, or something that is refused (see above).
    """
    if len(raw) > MAX_BYTES:
        raise RecipeError(f"{where}: more than {MAX_BYTES:,} bytes; a recipe is smaller. Is this the right file?")
    text = _decoded(raw, where) if isinstance(raw, bytes) else raw
    try:
        return _Builder(yaml.parse(text, Loader=yaml.SafeLoader), where, lines).document(path)
    except yaml.YAMLError as error:
        line, column, problem = _complaint(error, text)
        place = _place(where, line, column) if lines else where
        hint = next((f". {todo}" for part, todo in _HINTS.items() if part in problem), "")
        raise RecipeError(f"{place}: not YAML: {shown(problem, 200)}{hint}.") from error
    except (ValueError, OverflowError) as error:  # PyYAML 6.0.3: chr() of "\UFFFFFFFF", int() of a long %YAML version
        raise RecipeError(f"{where}: not YAML: {error}. Remove the escape or directive.") from error


def dump(plain: Any) -> str:
    """Write None, bool, int, float, str, list and dict so that ``load``, and YAML 1.1 readers, read the same."""
    text: str = yaml.dump(
        plain, Dumper=_Writer, default_flow_style=None, sort_keys=False, allow_unicode=True, width=120
    )
    return text


def _place(where: str, line: int, column: int = 0) -> str:
    return ":".join([where, *(str(number) for number in (line, column) if number)])


def _decoded(raw: bytes, where: str) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        place = _place(where, raw.count(b"\n", 0, error.start) + 1)
        raise RecipeError(f"{place}: byte {raw[error.start]:#04x}; UTF-8 is allowed. Save the file so.") from error


def _complaint(error: yaml.YAMLError, text: str) -> tuple[int, int, str]:
    """Return line, column and message of PyYAML's two kinds of error."""
    if isinstance(error, yaml.reader.ReaderError):  # a character that YAML forbids
        line_start = text.rfind("\n", 0, error.position) + 1
        return text.count("\n", 0, error.position) + 1, error.position - line_start + 1, error.reason
    if not isinstance(error, yaml.MarkedYAMLError) or error.problem_mark is None:
        return 0, 0, str(error)
    mark, start = error.problem_mark, error.context_mark  # an open bracket is noticed at the end of the file
    begun = f", begun on line {start.line + 1}" if start and start.line != mark.line else ""
    return mark.line + 1, mark.column + 1, f"{error.problem}{begun}"


class _Builder:
    """Turns PyYAML's events into nodes."""

    def __init__(self, events: Iterator[yaml.Event], where: str, lines: bool) -> None:
        self.events: Iterator[Any] = events
        self.where = where
        self.lines = lines

    def line(self, event: Any) -> int:
        return event.start_mark.line + 1 if self.lines else 0

    def document(self, path: str) -> Node:
        """Build the only document; nothing at all is a None."""
        next(self.events)  # the start of the stream
        start = next(self.events)
        if isinstance(start, yaml.StreamEndEvent):
            return Node(None, "", self.where, 1 if self.lines else 0, path)
        top = self.node(next(self.events), path, self.line(start))
        next(self.events)  # the end of the document
        after = next(self.events)
        if not isinstance(after, yaml.StreamEndEvent):
            place = _place(self.where, self.line(after))
            raise RecipeError(f"{place}: a second document; one is allowed. Remove the '---' or '...' line.")
        return top

    def node(self, event: Any, path: str, line: int, depth: int = 1) -> Node:
        """Build the node that ``event`` starts."""
        blank = Node(None, "", self.where, line, path)
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise blank.error(
                "an alias or anchor; plain values are allowed. Repeat the value, or quote text with & or *."
            )
        if event.tag is not None:
            raise blank.error(
                f"tag '{shown(event.tag)}'; plain values are allowed. Remove it, or quote text with a '!'."
            )
        if depth > MAX_DEPTH:
            raise RecipeError(f"{_place(self.where, line)}: level {depth}; {MAX_DEPTH} are allowed. Is this a recipe?")
        if isinstance(event, yaml.ScalarEvent):
            return Node(_scalar(event, blank), event.value, self.where, line, path)
        collect = self.items if isinstance(event, yaml.SequenceStartEvent) else self.pairs
        return Node(collect(path, depth + 1), "", self.where, line, path)

    def items(self, path: str, depth: int) -> list[Node]:
        found: list[Node] = []
        while not isinstance(event := next(self.events), yaml.SequenceEndEvent):
            found.append(self.node(event, f"{path}[{len(found)}]", self.line(event), depth))
        return found

    def pairs(self, path: str, depth: int) -> dict[str, Node]:
        found: dict[str, Node] = {}
        while not isinstance(event := next(self.events), yaml.MappingEndEvent):
            key = self.node(event, path, self.line(event), depth)
            if isinstance(key.value, (list, dict)):
                raise key.error("a key that is a list or mapping; a word is allowed. Write 'word: value'.")
            inner = f"{path}.{shown(key.text)}" if path else shown(key.text)
            child = self.node(next(self.events), inner, key.line, depth)
            if first := found.get(key.text):
                on = f", first on line {first.line}" if self.lines else ""
                raise child.error(f"key given twice{on}; once is allowed. Remove one of the two.")
            found[key.text] = child
        return found


def _scalar(event: yaml.ScalarEvent, blank: Node) -> Any:
    """Return the value that the text of ``event`` means."""
    text = event.value
    if bad := next((_NOT_IN_TEXT[kind] for kind in map(unicodedata.category, text) if kind in _NOT_IN_TEXT), None):
        raise blank.error(f"{bad} in {shown(text)!r}; text of one line is allowed. Remove it.")
    if event.style:  # quoted
        return text
    if text in _WORDS:
        return _WORDS[text]
    number = int if _INT.fullmatch(text) else float if _FLOAT.fullmatch(text) else None
    if number is None:
        return text
    if len(text) > MAX_NUMBER_LENGTH:
        raise blank.error(f"a number of {len(text)} characters; {MAX_NUMBER_LENGTH} are allowed. Round it.")
    if math.isinf(value := number(text)):
        raise blank.error(f"the number {text}; numbers below 1e308 are allowed. Shorten it.")
    return value


class _Writer(yaml.SafeDumper):
    """Quotes what either YAML 1.1 or this module would read as something else than text; writes no aliases."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Writer.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(f"(?:{_FLOAT.pattern})$"), list("-+.0123456789"))
