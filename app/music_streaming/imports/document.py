"""Elements of an array within a JSON document of any size, one at a time.

Python's own decoder takes an element, so that memory holds one element and depth has its limit. ijson was
tried: its C backend ends the process with a segmentation fault at a few thousand brackets in a row, and an
import may come from a browser.
"""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

CHUNK_BYTES = 1 << 16
ELEMENT_LIMIT = 1 << 20
"""Longest element in characters: a play takes a few hundred."""
DIGITS = 40


class BrokenError(ValueError):
    """Bytes that are no JSON, or end in the middle; the text says what was found."""


def elements(file: BinaryIO, path: Sequence[str]) -> Iterator[Any]:
    """Each value at `path`: "item" is every element of an array, any other word a key of an object.

    A value of another kind on the way is passed over. BrokenError where the document cannot be read on.
    """
    yield from _Document(file).walk(tuple(path))


def _integer(digits: str) -> float:
    # Python refuses thousands of digits; nothing here needs more than a few.
    return int(digits) if len(digits) < DIGITS else float("inf")


def _constant(name: str) -> None:
    raise BrokenError(f"{name}, which is no JSON")


_DECODER = json.JSONDecoder(parse_int=_integer, parse_constant=_constant)
_SPACE = " \t\r\n"


class _Document:
    """A JSON text, decoded as far as it is needed."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")(errors="replace")
        self._text, self._at, self._ended = "", 0, False

    def _more(self) -> bool:
        """Read on; False at the end."""
        if self._ended:
            return False
        chunk = self._file.read(CHUNK_BYTES)
        self._ended = not chunk
        self._text = self._text[self._at :] + self._decoder.decode(chunk, final=self._ended)
        self._at = 0
        return True

    def _peek(self) -> str:
        """The next character that is no white space; "" at the end."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in _SPACE:
                    return self._text[self._at]
                self._at += 1
            if not self._more():
                return ""

    def _take(self, wanted: str) -> str:
        found = self._peek()
        if not found or found not in wanted:
            raise BrokenError(f"found {found or 'the end of the file'}, wanted {' or '.join(wanted)}")
        self._at += 1
        return found

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _DECODER.raw_decode(self._text, self._at)
            except RecursionError:
                raise BrokenError("values within values, too deep") from None
            except json.JSONDecodeError as error:
                if len(self._text) - self._at > ELEMENT_LIMIT or not self._more():
                    raise BrokenError(error.msg) from None
                continue
            # A number may go on in the next chunk.
            if end < len(self._text) or not self._more():
                self._at = end
                return value

    def walk(self, path: tuple[str, ...]) -> Iterator[Any]:
        """Each value at `path` from here, and behind it at the end."""
        if not path:
            yield self._value()
        elif path[0] == "item" and self._peek() == "[":
            yield from self._array(path[1:])
        elif path[0] != "item" and self._peek() == "{":
            yield from self._object(path[0], path[1:])
        else:
            self._value()

    def _array(self, path: tuple[str, ...]) -> Iterator[Any]:
        self._take("[")
        if self._peek() == "]":
            self._take("]")
            return
        while True:
            yield from self.walk(path)
            if self._take(",]") == "]":
                return

    def _object(self, wanted: str, path: tuple[str, ...]) -> Iterator[Any]:
        self._take("{")
        if self._peek() == "}":
            self._take("}")
            return
        while True:
            if self._peek() != '"':
                raise BrokenError("a key without quotes")
            key = self._value()
            self._take(":")
            if key == wanted:
                yield from self.walk(path)
            else:
                self._value()
            if self._take(",}") == "}":
                return
