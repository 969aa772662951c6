"""Large JSON files, one element at a time: iNaturalist 2021 has 2.7 million images in one object of a gigabyte."""

import json
import re
from collections.abc import Iterator
from typing import Any

PIECE = 2**20  # characters that are read at a time
LONGEST = 2**26  # characters of one element
_NUMBER_ENDS = re.compile(r"[-+.0-9eE]*")


def elements(path: str) -> Iterator[tuple[str, Any]]:
    """(key, element) of each element of the lists of the object in the file; (key, value) of what is no list.

    A file that is one list gives ("", element). Raises ValueError that names the file, where it is not such JSON.
    """
    with open(path, encoding="utf-8-sig") as stream:
        reader = _Reader(stream, path)
        opening = reader.mark("{[")
        if opening == "[":
            yield from (("", element) for element in reader.list_elements())
            return
        if reader.peek() == "}":
            return
        while True:
            key = reader.value()
            if not isinstance(key, str):
                raise reader.error("a name in quotes")
            reader.mark(":")
            if reader.peek() == "[":
                reader.mark("[")
                yield from ((key, element) for element in reader.list_elements())
            else:
                yield key, reader.value()
            if reader.mark(",}") == "}":
                return


class _Reader:
    """Reads a text file forward. text: what has been read and not used; place: where the next value begins in it."""

    def __init__(self, stream: Any, path: str):
        self.stream, self.path = stream, path
        self.text, self.place, self.passed, self.ended = "", 0, 0, False
        self.decoder = json.JSONDecoder()

    def fill(self) -> None:
        """Read as much again as is waiting, so that a long element is not tried too often."""
        self.passed += self.place
        waiting = self.text[self.place :]
        if len(waiting) > LONGEST:
            raise ValueError(f"{self.path} has an element of more than {LONGEST} characters.")
        try:
            piece = self.stream.read(max(PIECE, len(waiting)))
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path} is not UTF-8 text: {error.reason}.") from None
        self.text, self.place, self.ended = waiting + piece, 0, not piece

    def peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            while self.place < len(self.text) and self.text[self.place] in " \t\r\n":
                self.place += 1
            if self.place < len(self.text) or self.ended:
                return self.text[self.place : self.place + 1]
            self.fill()

    def mark(self, wanted: str) -> str:
        """The next character, which is one of `wanted`, and is passed over."""
        found = self.peek()
        if not found or found not in wanted:
            raise self.error(" or ".join(wanted))
        self.place += 1
        return found

    def value(self) -> Any:
        """The next value."""
        self.peek()
        while True:
            try:
                value, end = self.decoder.raw_decode(self.text, self.place)
                # A number may go on where the text that has been read ends: 1 of 17, or 1 of 1e5.
                number = isinstance(value, int | float) and _NUMBER_ENDS.fullmatch(self.text, end)
                if self.ended or (end < len(self.text) and not number):
                    self.place = end
                    return value
            except json.JSONDecodeError as error:
                if self.ended and (error.pos >= len(self.text.rstrip()) or "Unterminated" in error.msg):
                    self.place = len(self.text)
                if self.ended:
                    raise self.error("a value") from None
            except RecursionError:
                raise self.error("fewer values inside each other") from None
            self.fill()

    def list_elements(self) -> Iterator[Any]:
        """The elements of a list whose bracket is passed."""
        if self.peek() == "]":
            self.place += 1
            return
        while True:
            yield self.value()
            if self.mark(",]") == "]":
                return

    def error(self, wanted: str) -> ValueError:
        """The sentence on what is not at the next place."""
        there = self.text[self.place : self.place + 20]
        what = f"has {there!r}" if there else "ends: it may be cut off"
        return ValueError(
            f"{self.path} is not JSON: at character {self.passed + self.place} it needs {wanted} and {what}."
        )
