"""Conditions on the rows of a table, such as `family == Theridiidae and year >= 2015`, as pyarrow expressions.

    condition  = and-part { "or" and-part }
    and-part   = part { "and" part }
    part       = "not" part | "(" condition ")" | comparison
    comparison = column ( "==" | "=" | "!=" | "<" | "<=" | ">" | ">=" ) value
               | column [ "not" ] "in" "(" value { "," value } ")"
               | column "is" [ "not" ] "null"

A value is a word, a number, a date as 2024-01-31, or text in quotes; a column whose name is no single word stands in
`backquotes`. As in SQL, an empty cell fulfils no comparison. Nothing is evaluated as code.
"""

import datetime
import decimal
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from deitlt_tf.data.table import columns

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>'(?:[^']|'')*' | "(?:[^"]|"")*")
  | (?P<name>`[^`]+`)
  | (?P<operator>==|!=|<=|>=|=|<|>)
  | (?P<mark>[(),])
  | (?P<word>[^\s(),=<>!'"`]+)
    )""",
    re.VERBOSE,
)
_KEYWORDS = ("and", "or", "not", "in", "is", "null")
_NUMBER = re.compile(r"[-+]?(\d+(\.\d*)?|\.\d+)([eE][-+]?\d+)?")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d(:\d\d)?)?")
MAX_LENGTH, MAX_DEPTH = 100_000, 50  # characters and nested brackets of a condition


@dataclass(frozen=True)
class _Comparison:
    """column operator value: ==, !=, <, <=, >, >=, in, not in, is null, is not null. values: (text, quoted)."""

    column: str
    operator: str
    values: tuple[tuple[str, bool], ...] = ()


@dataclass(frozen=True)
class _Join:
    """word: and, or, not. parts: what it joins."""

    word: str
    parts: tuple[Any, ...]


@dataclass(frozen=True)
class Condition:
    """A parsed condition. argument: name of the caller's argument that holds it, for the error messages."""

    text: str
    argument: str
    tree: Any

    @property
    def columns(self) -> list[str]:
        """The columns that it names, each once."""
        return list(dict.fromkeys(_columns(self.tree)))

    def expression(self, schema: "pa.Schema", *, file: str) -> "pc.Expression":
        """The condition for a file with these columns.

        Raises ValueError that names file and column where a column is missing, or a value does not fit its type.
        """
        try:
            return _expression(self.tree, schema)
        except KeyError as error:
            name = error.args[0]
            missing = f"{file} has no column {name!r}, which `{self.argument}` names"
            raise ValueError(f"{missing}: {columns.near(name, schema.names)}") from None
        except ValueError as error:
            raise ValueError(f"{self.argument}={self.text}: {error} ({file})") from None


def parse(text: str, *, argument: str) -> Condition | None:
    """The condition, None for an empty text. Raises ValueError that shows the place of a mistake."""
    if not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        raise ValueError(f"`{argument}` has {len(text)} characters, more than {MAX_LENGTH}.")
    parser = _Parser(text, argument)
    tree = parser.condition(0)
    if parser.kind != "end":
        raise parser.error("and, or, or the end")
    return Condition(text.strip(), argument, tree)


class _Parser:
    """Reads the text from left to right; kind and value are those of the next token."""

    def __init__(self, text: str, argument: str):
        self.text, self.argument, self.end = text, argument, 0
        self.advance()

    def advance(self) -> str:
        """Go on to the next token; returns the value of the one before."""
        before = getattr(self, "value", "")
        self.start = self.end
        if not self.text[self.end :].strip():
            self.kind, self.value, self.start = "end", "", len(self.text.rstrip())
            return before
        match = _TOKEN.match(self.text, self.end)
        if not match:
            raise self.error("a column, a value or an operator")
        self.kind, self.value, self.end = str(match.lastgroup), match[str(match.lastgroup)], match.end()
        self.start = match.start(str(match.lastgroup))
        if self.kind == "word" and self.value.lower() in _KEYWORDS:
            self.kind, self.value = "keyword", self.value.lower()
        return before

    def error(self, wanted: str) -> ValueError:
        """The sentence for what stands at the next token instead of what is wanted."""
        before, after = self.text[: self.start].strip(), self.text[self.start :].split()
        place = f"after {before!r}" if before else "at its beginning"
        return ValueError(
            f"`{self.argument}` cannot be read {place}: it needs {wanted}, and has {after[0] if after else 'its end'!r}"
        )

    def take(self, *values: str) -> bool:
        """Whether the next tokens are these keywords or marks; if so, they are passed over."""
        place = self.kind, self.value, self.start, self.end
        for value in values:
            if self.kind not in ("keyword", "mark") or self.value != value:
                self.kind, self.value, self.start, self.end = place
                return False
            self.advance()
        return True

    def condition(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise ValueError(f"`{self.argument}` has more than {MAX_DEPTH} brackets inside each other.")
        parts = [self.and_part(depth)]
        while self.take("or"):
            parts.append(self.and_part(depth))
        return parts[0] if len(parts) == 1 else _Join("or", tuple(parts))

    def and_part(self, depth: int) -> Any:
        parts = [self.part(depth)]
        while self.take("and"):
            parts.append(self.part(depth))
        return parts[0] if len(parts) == 1 else _Join("and", tuple(parts))

    def part(self, depth: int) -> Any:
        if self.take("not"):
            if depth >= MAX_DEPTH:
                raise ValueError(f"`{self.argument}` has more than {MAX_DEPTH} times not in a row.")
            return _Join("not", (self.part(depth + 1),))
        if self.take("("):
            inside = self.condition(depth + 1)
            if not self.take(")"):
                raise self.error("and, or, or )")
            return inside
        return self.comparison()

    def comparison(self) -> _Comparison:
        if self.kind not in ("word", "name"):
            raise self.error("the name of a column")
        column = self.advance().strip("`")
        if self.take("is"):
            operator = "is not null" if self.take("not") else "is null"
            if not self.take("null"):
                raise self.error("null")
            return _Comparison(column, operator)
        operator = "not in" if self.take("not", "in") else "in" if self.take("in") else ""
        if operator:
            return _Comparison(column, operator, tuple(self.values()))
        if self.kind != "operator":
            raise self.error("==, !=, <, <=, >, >=, in (...) or is null")
        operator = self.advance()
        return _Comparison(column, "==" if operator == "=" else operator, (self.one_value(),))

    def values(self) -> Sequence[tuple[str, bool]]:
        if not self.take("("):
            raise self.error("( and a list of values")
        values = [self.one_value()]
        while self.take(","):
            values.append(self.one_value())
        if not self.take(")"):
            raise self.error(", or ); a value of several words stands in quotes")
        return values

    def one_value(self) -> tuple[str, bool]:
        """(text, whether it stood in quotes)."""
        if self.kind == "text":
            quoted = self.advance()
            return quoted[1:-1].replace(quoted[0] * 2, quoted[0]), True
        if self.kind != "word":
            raise self.error("a value")
        return self.advance(), False


def _columns(tree: Any) -> list[str]:
    if isinstance(tree, _Comparison):
        return [tree.column]
    return [name for part in tree.parts for name in _columns(part)]


def _expression(tree: Any, schema: "pa.Schema") -> "pc.Expression":
    import pyarrow as pa
    import pyarrow.compute as pc

    if isinstance(tree, _Join):
        parts = [_expression(part, schema) for part in tree.parts]
        if tree.word == "not":
            return ~parts[0]
        whole = parts[0]
        for part in parts[1:]:
            whole = whole & part if tree.word == "and" else whole | part
        return whole
    if tree.column not in schema.names:
        raise KeyError(tree.column)
    field, kind = pc.field(tree.column), schema.field(tree.column).type
    if tree.operator.startswith("is"):
        return field.is_null() if tree.operator == "is null" else field.is_valid()
    values = [_scalar(value, kind, tree) for value in tree.values]
    if tree.operator.endswith("in"):  # an empty cell is in no list, and not out of one either, as in SQL
        inside = pc.if_else(field.is_valid(), field.isin(values), pa.scalar(None, pa.bool_()))
        return inside if tree.operator == "in" else ~inside
    operators = {
        "==": field.__eq__,
        "!=": field.__ne__,
        "<": field.__lt__,
        "<=": field.__le__,
        ">": field.__gt__,
        ">=": field.__ge__,
    }
    return operators[tree.operator](values[0])


def _scalar(value: tuple[str, bool], kind: "pa.DataType", comparison: _Comparison) -> "pa.Scalar":
    """The value in the type of its column. Raises ValueError that names column and value."""
    import pyarrow as pa

    text, quoted = value
    inner = kind.value_type if pa.types.is_dictionary(kind) else kind
    name = comparison.column
    if pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner):
        if comparison.operator[0] in "<>" and not quoted and _NUMBER.fullmatch(text):
            raise ValueError(
                f"column {name!r} holds text, so {text} would be compared letter by letter; if that is meant, write "
                f"{name} {comparison.operator} '{text}'"
            )
        return pa.scalar(text, pa.string() if pa.types.is_null(inner) else inner)
    wanted = "a number"
    try:
        if pa.types.is_boolean(inner):
            wanted = "true or false"
            return pa.scalar({"true": True, "false": False}[text.lower()])
        if pa.types.is_integer(inner) or pa.types.is_floating(inner):
            if not _NUMBER.fullmatch(text):
                raise ValueError(text)
            if pa.types.is_floating(inner):
                return pa.scalar(float(text))
            wanted = "a whole number of at most 64 bits"
            return pa.scalar(_whole(text, comparison.operator), pa.int64())
        if pa.types.is_date(inner) or pa.types.is_timestamp(inner):
            wanted = "a date such as 2024-01-31"
            if not _DATE.fullmatch(text):
                raise ValueError(text)
            moment = datetime.datetime.fromisoformat(text)
            if pa.types.is_date(inner):
                return pa.scalar(moment.date(), inner)
            if inner.tz:
                moment = moment.replace(tzinfo=datetime.UTC)
            return pa.scalar(moment, inner)
    except (ValueError, KeyError, ArithmeticError, pa.ArrowInvalid):
        raise ValueError(f"column {name!r} needs {wanted}, not {text!r}") from None
    raise ValueError(f"column {name!r} is of type {kind}, which cannot be compared")


def _whole(text: str, operator: str) -> int:
    """The whole number that means the same as a number for a column of whole numbers: `x < 1.5` is `x < 2`.

    pyarrow would turn the column into float32 for a fraction, and fail at numbers above 2^24.
    Raises ValueError if an operator of equality has a number that no cell can be.
    """
    number = decimal.Decimal(text)
    nearest = min(max(number, decimal.Decimal(-(2**63))), decimal.Decimal(2**63 - 1))
    rounded = math.ceil(nearest) if operator in ("<", ">=") else math.floor(nearest)
    if rounded != number and operator[0] not in "<>":
        raise ValueError(text)
    return rounded
