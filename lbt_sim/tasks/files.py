"""Rows out of JSON Lines and CSV files, each with the place where it stands."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from lbt_sim.errors import Place, TaskError

__all__ = ["MAX_LINE", "Row", "Table", "read_csv", "read_jsonl"]

MAX_LINE = 1_000_000
"""Bytes in one line. A longer line is a file of another format, or no problem that fits into a prompt."""


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a data file.

    Attributes:
        number: Which row it is, from 1, blank lines not counted.
        values: Field name -> value, as the file has it.
        file: The file, as the scenario calls it.
        line: The line it starts on, None where the source has no lines.
    """

    number: int
    values: dict[str, Any]
    file: str
    line: int | None

    def place(self, key: str | None = None) -> Place:
        """Where the row stands, and which of its fields is meant."""
        return Place(self.file, self.line, key)

    def __str__(self) -> str:
        return f"{self.file}:{self.line}" if self.line is not None else f"{self.file} row {self.number}"


@dataclass(frozen=True, slots=True)
class Table:
    """All rows of one source, and a digest that says which version of it was read."""

    rows: tuple[Row, ...]
    file: str
    sha256: str


def read_jsonl(path: Path, name: str) -> Table:
    """Read one JSON object a line; blank lines, a byte order mark and CRLF are accepted.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        TaskError: The file cannot be read, or a line is not UTF-8, not JSON, not an object, or too long.
    """
    data = _bytes(path, name)
    rows: list[Row] = []
    # Split at \n only: JSON strings may hold U+2028 and other characters that str.splitlines breaks at.
    for line, raw in enumerate(_without_mark(data).split(b"\n"), 1):
        if len(raw) > MAX_LINE:
            _refuse(f"The line has {len(raw):,} bytes; at most {MAX_LINE:,} are read.", Place(name, line))
        if raw.strip():
            rows.append(Row(len(rows) + 1, _object(raw, name, line), name, line))
    return Table(tuple(rows), name, hashlib.sha256(data).hexdigest())


def read_csv(path: Path, name: str) -> Table:
    """Read comma-separated values with a header row; quoted fields may span lines.

    Args:
        path: The file.
        name: What to call it in messages.

    Raises:
        TaskError: The file cannot be read, is not UTF-8, has no usable header, or a row has not its fields.
    """
    data = _bytes(path, name)
    text = _decode(_without_mark(data), name)
    records = _records(text, name)
    header: list[str] = next(records, (1, []))[1]
    _check_header(header, name)
    rows: list[Row] = []
    for line, record in records:
        if len(record) != len(header):
            what = f"The row has {len(record)} fields where the header has {len(header)}."
            raise TaskError(what, where=Place(name, line), valid=header, remedy="Quote fields that hold a comma.")
        rows.append(Row(len(rows) + 1, dict(zip(header, record, strict=True)), name, line))
    return Table(tuple(rows), name, hashlib.sha256(data).hexdigest())


def _bytes(path: Path, name: str) -> bytes:
    try:
        if not path.is_file():
            _refuse("There is no such file." if not path.exists() else "This is not a file.", Place(name))
        return path.read_bytes()
    except OSError as error:
        raise TaskError(f"The file cannot be read: {error.strerror}.", where=Place(name)) from error


def _without_mark(data: bytes) -> bytes:
    return data.removeprefix(b"\xef\xbb\xbf")


def _decode(data: bytes, name: str, line: int = 1) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line += data.count(b"\n", 0, error.start)
        what = f"Byte 0x{data[error.start]:02x} is not UTF-8."
        raise TaskError(what, where=Place(name, line), remedy="Save the file as UTF-8.") from None


def _object(raw: bytes, name: str, line: int) -> dict[str, Any]:
    where = Place(name, line)
    try:
        value = json.loads(_decode(raw, name, line), parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        what = f"Not JSON: {error.msg} at column {error.colno}."
        raise TaskError(what, where=where, remedy="Each line is one JSON object.") from None
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise TaskError(f"Not usable JSON: {reason}.", where=where) from None
    if not isinstance(value, dict):
        what = f"The line holds {_kind(value)} where an object is expected."
        raise TaskError(what, where=where, remedy='Write one object a line: {"question": "…", "answer": "…"}.')
    return value


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _kind(value: object) -> str:
    kinds = {list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return kinds.get(type(value), "null")


def _records(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Each non-blank record with the line it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    start = 1
    try:
        for record in reader:
            if record:
                yield start, record
            start = reader.line_num + 1
    except csv.Error as error:
        raise TaskError(f"Not CSV: {error}.", where=Place(name, start)) from None


def _check_header(header: list[str], name: str) -> None:
    if not header:
        _refuse("The file is empty; the first line names the fields.", Place(name, 1))
    unusable = sorted({field for field in header if not field.strip() or header.count(field) > 1})
    if unusable:
        what = f"Field names are empty or stand twice in the header: {', '.join(map(repr, unusable))}."
        raise TaskError(what, where=Place(name, 1), remedy="Give each column a name of its own.")


def _refuse(what: str, where: Place) -> NoReturn:
    raise TaskError(what, where=where)
