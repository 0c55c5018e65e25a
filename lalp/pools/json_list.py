"""A JSON list, read item by item: a file may be larger than the memory."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from lalp.errors import InputError
from lalp.pools.lines import ROW_LIMIT, json_decoder, too_long
from lalp.pools.pool import located

_CHUNK = 1 << 20  # bytes
_BLANK = re.compile(r"[ \t\r\n]*")
# This near the end of the text in memory, unread text may cause an error.
_MARGIN = 32


def json_items(file: IO[bytes], name: Any) -> Iterator[tuple[int, Any]] | None:
    """Yield (1-based number, value) of the items of a JSON list; None if the file is not a list.

    InputError with the file's name and the number of the item that is not strict JSON.

    Example:
        >>> import io
        >>> list(json_items(io.BytesIO(b'[{"a": 1}, 2]'), "x.json"))
        [(1, {'a': 1}), (2, 2)]
    """
    text = _Text(file)
    with located(str(name)):
        return _items(text, name) if text.take() == "[" else None


def _items(text: _Text, name: Any) -> Iterator[tuple[int, Any]]:
    number, mark = 0, ","
    with located(f"{name}, item 1"):
        if text.peek() == "]":
            mark = text.take()
    while mark == ",":
        number += 1
        with located(f"{name}, item {number}"):
            value = text.value()
        yield number, value
        with located(f"{name}, after item {number}"):
            mark = text.take()
    if mark != "]" or text.peek():
        where = f"after item {number}, at {text.place()}"
        raise InputError(f"{name}: invalid JSON {where}; mend the file")


class _Text:
    """The text of a file; only the part being parsed is in memory."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._decoder, self._parse = file, _decoder(), json_decoder()
        self._text, self._at, self._bytes = "", 0, 0
        self._line, self._column = 1, 1  # of the first character in memory

    def peek(self) -> str:
        """The next character that is not white space; empty at the end."""
        while True:
            self._at = _BLANK.match(self._text, self._at).end()
            if self._at < len(self._text):
                return self._text[self._at]
            if not self._more(_CHUNK):
                return ""

    def take(self) -> str:
        """Skip the next character that is not white space, and return it."""
        found = self.peek()
        self._at += len(found)
        return found

    def value(self) -> Any:
        """Parse the JSON value that begins here."""
        self.peek()
        self._forget()
        while True:
            try:
                value, end = self._parse.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._may_go_on(error) and self._more(len(self._text)):
                    continue
                place = f"{error.msg} at {self.place(error.pos)}"
                raise InputError(f"invalid JSON: {place}; mend the file") from None
            except RecursionError:
                raise InputError("invalid JSON: nested too deeply; mend the file") from None
            except ValueError as error:
                raise InputError(f"invalid JSON: {error}; mend the file") from None
            # A number may continue in unread text: 1 of 1.5, 1 of 1e+5.
            if end < len(self._text) - _MARGIN or not self._more(_CHUNK):
                self._at = end
                return value

    def place(self, position: int | None = None) -> str:
        """Line and column of a position in memory."""
        end = self._at if position is None else position
        breaks = self._text.count("\n", 0, end)
        column = end - self._text.rfind("\n", 0, end) if breaks else self._column + end
        return f"line {self._line + breaks}, column {column}"

    def _may_go_on(self, error: json.JSONDecodeError) -> bool:
        is_open = error.msg.startswith("Unterminated string")
        return is_open or error.pos > len(self._text) - _MARGIN

    def _forget(self) -> None:
        """Drop the parsed text when it is longer than the rest."""
        if self._at < len(self._text) // 2:
            return
        done = self._text[: self._at]
        breaks = done.count("\n")
        self._column = len(done) - done.rfind("\n") if breaks else self._column + len(done)
        self._line += breaks
        self._text, self._at = self._text[self._at :], 0

    def _more(self, size: int) -> bool:
        """Read more; False at the end of the file."""
        if len(self._text) - self._at > ROW_LIMIT:
            raise too_long()
        raw = self._file.read(max(size, _CHUNK))
        try:
            self._text += self._decoder.decode(raw, final=not raw)
        except UnicodeDecodeError as error:
            # The decoder may have kept the first bytes of a character from the chunk before.
            offset = self._bytes + len(raw) - len(error.object) + error.start
            place = f"byte 0x{error.object[error.start]:02x} at offset {offset}"
            raise InputError(f"not UTF-8 text: {place}; save it as UTF-8") from None
        self._bytes += len(raw)
        return bool(raw)


def _decoder() -> codecs.IncrementalDecoder:
    return codecs.getincrementaldecoder("utf-8-sig")()
