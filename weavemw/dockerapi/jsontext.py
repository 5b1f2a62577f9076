"""JSON text taken apart, but not read: where each value in it begins and ends. Pure.

What is a value, and how deep it may go, is as in Go's ``encoding/json``. The parts
that nobody asks for are checked and skipped, so a body costs little more memory
than its bytes, and time in proportion to them, whatever is in it.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable
from typing import Any

from weavemw.errors import BadRequest, PayloadTooLarge

__all__ = ["DEEPEST", "MOST_BRACKETS", "MOST_PARTS", "Text", "object_at_start"]

#: How deep lists and objects may be in one another, as in Go.
DEEPEST = 10_000
#: How many fields or items an object or list may have that is looked into.
MOST_PARTS = 20_000
#: How many opening brackets a text may have, those within strings too: each takes a step, a microsecond or less.
#: The publishing of all ports of a host (``docker run -p 1-65535:1-65535``) takes half of that.
MOST_BRACKETS = 400_000

#: Ends are remembered of what is longer than this many bytes, and not deeper than this in a part.
_LONG, _SHALLOW = 1000, 3

_SPACE = rb"[ \t\r\n]*"
_STRING = rb'"[^"\\\x00-\x1f]*(?:\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4})[^"\\\x00-\x1f]*)*+"'
_NUMBER = rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_SIMPLE = rb"(?:%b|%b|true|false|null|\[%b\]|\{%b\})" % (_STRING, _NUMBER, _SPACE, _SPACE)
_KEY = rb"%b%b:%b" % (_STRING, _SPACE, _SPACE)

_SURROGATES = "[\ud800-\udfff]"
_LIST, _OBJECT = b"[{"

_Match = Callable[[bytes, int], re.Match[bytes] | None]


def _matcher(pattern: bytes) -> _Match:
    return re.compile(pattern).match


def _parts(key: bytes, closing: bytes) -> bytes:
    """As many simple parts of a list or an object as there are, and then a bracket, if one follows.

    A hundred at a time: a repetition without an end would need memory for each.
    """
    part = rb"%b%b%b" % (key, _SIMPLE, _SPACE)
    return rb"(?:%b,%b){0,100}(?:%b([\[{])|%b(%b))?" % (part, _SPACE, key, part, closing)


_PARTS = {_LIST: (_parts(b"", rb"\]"), rb"\]"), _OBJECT: (_parts(_KEY, rb"\}"), rb"\}")}


class _Grammar:
    """The patterns, compiled: that takes longer than to import all that the proxy's decisions are made of."""

    def __init__(self) -> None:
        # What may follow in a list or an object: behind its opening, at one of its parts, behind a nested one's end.
        self.behind_opening = {kind: _matcher(rb"%b(?:(%b)|%b)" % (_SPACE, closing, parts))
                               for kind, (parts, closing) in _PARTS.items()}
        self.at_part = {kind: _matcher(parts) for kind, (parts, _) in _PARTS.items()}
        self.behind_nested = {kind: _matcher(rb"%b(?:(%b)|,%b%b)" % (_SPACE, closing, _SPACE, parts))
                              for kind, (parts, closing) in _PARTS.items()}
        self.at_space, self.at_simple, self.at_opening = map(_matcher, (_SPACE, _SIMPLE, rb"([\[{])"))
        self.at_key = {_LIST: _matcher(b"()"), _OBJECT: _matcher(rb"(%b)%b:%b" % (_STRING, _SPACE, _SPACE))}
        self.at_separator = _matcher(rb"%b([,\]}])%b" % (_SPACE, _SPACE))


_grammar = functools.cache(_Grammar)


class Text:
    """One value within a text: well-formed, and not read. ``value`` is for whoever reads it, to keep it."""

    __slots__ = ("_source", "begin", "end", "value")

    def __init__(self, source: _Source, begin: int, end: int) -> None:
        self._source = source
        self.begin = begin
        self.end = end
        self.value: Any = None

    def __bytes__(self) -> bytes:
        return self._source.raw[self.begin : self.end]

    @property
    def first(self) -> str:
        """The character that it begins with, which tells its type."""
        return chr(self._source.raw[self.begin])

    def string(self) -> str:
        """What a string says; bytes that are not UTF-8 and lone surrogates read as U+FFFD each."""
        return _string(bytes(self))

    def fields(self) -> list[tuple[str, Text]]:
        """The fields of an object, in their order. Raises :class:`~weavemw.errors.PayloadTooLarge`."""
        return [(_string(key), part) for key, part in self._source.parts(self.begin)[0]]

    def items(self) -> list[Text]:
        """The items of a list. Raises :class:`~weavemw.errors.PayloadTooLarge`."""
        return [part for _, part in self._source.parts(self.begin)[0]]


def object_at_start(raw: bytes) -> Text | None:
    """The object that a text begins with, ``None`` if it begins with anything else; what follows does not matter.

    Raises :class:`~weavemw.errors.BadRequest` for one that is nested too deeply, and
    :class:`~weavemw.errors.PayloadTooLarge` for one that has too many parts to be looked at.
    """
    if raw.count(b"[") + raw.count(b"{") > MOST_BRACKETS:
        raise PayloadTooLarge(f"the body's JSON has more than {MOST_BRACKETS} lists and objects")
    begin = _end(_grammar().at_space(raw, 0))
    if raw[begin : begin + 1] != b"{":
        return None
    source = _Source(raw)
    try:
        return Text(source, begin, source.parts(begin)[1])
    except ValueError:
        return None


class _Source:
    """A text, and what was found out about it."""

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self._ends: dict[int, int] = {}
        self._grammar = _grammar()

    def parts(self, begin: int) -> tuple[list[tuple[bytes, Text]], int]:
        """The parts of the list or object that begins here, each with its key as it stands, and where all ends."""
        raw, grammar = self.raw, self._grammar
        at_key = grammar.at_key[raw[begin]]
        found: list[tuple[bytes, Text]] = []
        place = _end(grammar.at_space(raw, begin + 1))
        if raw[place : place + 1] == _closing(raw, begin):
            return found, place + 1
        while len(found) < MOST_PARTS:
            key = _some(at_key(raw, place))
            end = self._end_of(key.end())
            found.append((key[1], Text(self, key.end(), end)))
            separator = _some(grammar.at_separator(raw, end))
            if separator[1] == _closing(raw, begin):
                return found, separator.end(1)
            if separator[1] != b",":
                raise ValueError
            place = separator.end()
        raise PayloadTooLarge(f"the body's JSON has more than {MOST_PARTS} fields or items in one place")

    def _end_of(self, begin: int) -> int:
        simple = self._grammar.at_simple(self.raw, begin)
        if simple:
            return simple.end()
        return self._ends.get(begin) or self._skip(begin)

    def _skip(self, begin: int) -> int:
        """Where the list or object ends that begins here; raises ValueError if it is none."""
        raw, grammar, kinds, begins = self.raw, self._grammar, bytearray(), list[int]()
        place, match = begin, grammar.at_opening
        while (found := match(raw, place)) and (end := found.end()) > place:
            place = end
            if not found.lastindex:
                match = grammar.at_part[kinds[-1]]
            elif (bracket := raw[end - 1]) in grammar.behind_opening:
                kinds.append(bracket)
                begins.append(end - 1)
                match = grammar.behind_opening[bracket]
                if len(kinds) >= DEEPEST:  # with the object at the start; an empty one within the last passes
                    raise BadRequest("the body's JSON is nested too deeply")
            else:
                kinds.pop()
                begin = begins.pop()
                if not kinds:
                    return end
                if end - begin > _LONG and len(kinds) <= _SHALLOW:
                    self._ends[begin] = end
                match = grammar.behind_nested[kinds[-1]]
        raise ValueError


def _closing(raw: bytes, begin: int) -> bytes:
    return b"]" if raw[begin] == _LIST else b"}"


def _end(match: re.Match[bytes] | None) -> int:
    return _some(match).end()


def _some(match: re.Match[bytes] | None) -> re.Match[bytes]:
    if match is None:
        raise ValueError
    return match


def _string(token: bytes) -> str:
    text = token.decode("utf-8", "surrogateescape")
    text = json.loads(text) if "\\" in text else text[1:-1]
    return text if text.isascii() else re.sub(_SURROGATES, "\ufffd", text)
