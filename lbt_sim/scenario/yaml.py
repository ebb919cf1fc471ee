"""Reading and writing YAML: a strict subset, with the line of every key.

The scalars are those of YAML 1.2's core schema (https://yaml.org/spec/1.2.2/#103-core-schema): `Yes`, `No`, `on` and
`off` are text, `1e-3` is a number. Keys are always text, as they are written. Anchors, aliases, merge keys and tags
are refused, so a small file cannot grow into a large value, and no file can name Python.
"""

from __future__ import annotations

import math
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lbt_sim.errors import Place, ScenarioError

__all__ = [
    "MAX_BYTES",
    "MAX_DEPTH",
    "MAX_NODES",
    "Document",
    "KeyPath",
    "core_scalar",
    "dotted",
    "parse_path",
    "read_text",
    "read_value",
    "read_yaml",
    "read_yaml_file",
    "write_yaml",
]

KeyPath = tuple[str | int, ...]

MAX_BYTES = 1 << 20
MAX_DEPTH = 40
MAX_NODES = 100_000
MAX_KEY = 1000

_NULL = re.compile(r"null|Null|NULL|~|")
_TRUE = re.compile(r"true|True|TRUE")
_FALSE = re.compile(r"false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NOT_FINITE = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")
_LONGEST_NUMBER = 40

# libyaml's parser gives the same events as the one in Python, some ten times faster.
_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def dotted(path: Sequence[str | int]) -> str:
    """A key path as people write it: `cast.students[1].persona`."""
    text = ""
    for part in path:
        part = part if isinstance(part, int) or len(part) <= 80 else f"{part[:79]}…"
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


_STEP = re.compile(r"\.?([^.\[\]]+)|\[(\d{1,6})\]")


def parse_path(text: str) -> KeyPath:
    """The key path in `cast.students[1].persona`.

    Raises:
        ValueError: It is no path.
    """
    path: list[str | int] = []
    at = 0
    while match := _STEP.match(text, at):
        path.append(int(match[2]) if match[2] is not None else match[1])
        at = match.end()
    if at != len(text):
        raise ValueError(f"'{text}' is not the path of a key")
    return tuple(path)


@dataclass(frozen=True, slots=True)
class Document:
    """The value of a YAML file, and where each part of it stands.

    Attributes:
        value: Mappings, lists, text, numbers, booleans and None.
        file: The file, as shown to people.
        lines: Key path -> line, from 1.
        flags: Key path -> the command-line flag that set it (`--set seed=3`).
    """

    value: dict[str, Any]
    file: str
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    flags: Mapping[KeyPath, str] = field(default_factory=dict)

    def at(self, key_path: Sequence[str | int]) -> Any:
        """What stands at a key path; None where nothing does."""
        value: Any = self.value
        for part in key_path:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def flag(self, key_path: Sequence[str | int]) -> str | None:
        """The flag that set this key, or a key above it."""
        path = tuple(key_path)
        return next((self.flags[path[:n]] for n in range(len(path), 0, -1) if path[:n] in self.flags), None)

    def place(self, key_path: Sequence[str | int]) -> Place:
        """Where a key stands: its own line, or that of the nearest key above it."""
        path = tuple(key_path)
        for size in range(len(path), -1, -1):
            flag = self.flags.get(path[:size]) or self._made_by(path[:size])
            if flag is not None:
                return Place(key=flag if size == len(path) else f"{flag}  ({dotted(path)})")
            if path[:size] in self.lines:
                return Place(self.file, self.lines[path[:size]], dotted(path) or None)
        return Place(self.file, None, dotted(path) or None)

    def _made_by(self, path: KeyPath) -> str | None:
        """The flag that set something in a mapping that is not written in the file."""
        if not path or path in self.lines:
            return None
        return next((flag for key, flag in self.flags.items() if key[: len(path)] == path), None)


def read_text(path: Path, file: str, limit: int = MAX_BYTES) -> str:
    """The text of a file from a workspace.

    Args:
        path: The file.
        file: Its name, as shown to people.
        limit: The most bytes it may have; a larger one is refused before it is read.

    Raises:
        ScenarioError: It is missing, no ordinary file, too large, not UTF-8, or holds NUL characters.
    """
    where = Place(file)
    try:
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise ScenarioError("this is not a file", where=where, remedy="Give the path of a text file.")
        if info.st_size > limit:
            raise ScenarioError(
                f"the file has {info.st_size:,} bytes; at most {limit:,} are read",
                where=where,
                remedy="Is it the right file? Problems belong into a JSONL or CSV file that the task names.",
            )
        with path.open("rb") as stream:
            data = stream.read(limit + 1)
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ScenarioError(
            f"the file cannot be read: {reason}", where=where, remedy="Check the path and its permissions."
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ScenarioError(
            f"byte {error.start} is not UTF-8", where=Place(file, line), remedy="Save the file as UTF-8 text."
        ) from None
    if "\0" in text:
        line = text[: text.index("\0")].count("\n") + 1
        raise ScenarioError(
            "the file holds a NUL character", where=Place(file, line), remedy="Is it a text file? Save it as UTF-8."
        )
    return text


def read_yaml_file(path: Path, file: str | None = None) -> Document:
    """Reads a YAML file of at most 1 MiB; see `read_yaml`."""
    file = file or str(path)
    return read_yaml(read_text(path, file), file)


def read_yaml(text: str, file: str) -> Document:
    """Reads YAML whose top level is a mapping.

    Args:
        text: The YAML.
        file: The file's name, as shown to people.

    Raises:
        ScenarioError: With file and line: a syntax error; an anchor, alias, merge key or tag; a duplicate key; more
            than 40 levels or 100,000 values; several documents; NaN or infinity; a top level that is no mapping.
    """
    builder = _build(text, file)
    if not isinstance(builder.root, dict):
        found = "the file is empty" if builder.root is None else "the top level is not a mapping of keys to values"
        raise ScenarioError(
            found, where=Place(file, 1), remedy="Begin with `kind: scenario` (or classroom, agent, persona)."
        )
    return Document(builder.root, file, builder.lines)


def read_value(text: str, file: str) -> Any:
    """Reads one YAML value of any kind, under the rules of `read_yaml`."""
    return _build(text, file).root


def _build(text: str, file: str) -> _Builder:
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_LOADER):
            builder.take(event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise _syntax_error(error.problem or "", Place(file, mark.line + 1 if mark else None)) from None
    except yaml.YAMLError as error:
        at = getattr(error, "position", None)
        line = text[:at].count("\n") + 1 if isinstance(at, int) else None
        raise _syntax_error(getattr(error, "reason", ""), Place(file, line)) from None
    return builder


def _syntax_error(problem: str, where: Place) -> ScenarioError:
    remedy = "Look at this line and the one above it: indentation, a missing ':', an unclosed quote or bracket."
    if "\\t" in problem or "\t" in problem:
        remedy = "Indent with spaces; YAML does not allow tabs there."
    elif "mapping values" in problem:
        remedy = "Put text that holds ': ' into quotes, and check the indentation."
    what = f"this is not YAML: {problem or 'a character that is not allowed'}"
    return ScenarioError(what, where=where, remedy=remedy)


def core_scalar(text: str) -> Any:
    """The value of an unquoted scalar in YAML 1.2's core schema.

    Raises:
        ValueError: NaN, infinity, or a number beyond reason.
    """
    if _NULL.fullmatch(text):
        return None
    if _TRUE.fullmatch(text):
        return True
    if _FALSE.fullmatch(text):
        return False
    if _NOT_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a number that can be used")
    number = _INT.fullmatch(text) or _FLOAT.fullmatch(text)
    if not number:
        return text
    if len(text) > _LONGEST_NUMBER:
        raise ValueError(f"a number of {len(text)} characters")
    if _INT.fullmatch(text):
        return int(text[2:], {"0o": 8, "0x": 16}[text[:2]]) if text[:2] in ("0o", "0x") else int(text)
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


@dataclass(slots=True)
class _Level:
    """A mapping or list that is being read."""

    path: KeyPath
    container: dict[str, Any] | list[Any]
    key: str | None = None


class _Builder:
    """Builds the value from the parser's events, with a stack of its own: no depth of nesting can exhaust Python's."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.root: Any = None
        self.lines: dict[KeyPath, int] = {(): 1}
        self._levels: list[_Level] = []
        self._nodes = 0
        self._documents = 0

    def take(self, event: Any) -> None:
        line = event.start_mark.line + 1 if event.start_mark else 1
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise self._refuse("a second document begins here", line, "Keep one document in a file: remove '---'.")
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._levels.pop()
        elif isinstance(event, yaml.NodeEvent):
            self._node(event, line)

    def _refuse(self, what: str, line: int, remedy: str, path: KeyPath = ()) -> ScenarioError:
        return ScenarioError(what, where=Place(self.file, line, dotted(path) or None), remedy=remedy)

    def _node(self, event: Any, line: int) -> None:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise self._refuse(f"more than {MAX_NODES:,} values in one file", line, "Split the file.")
        if isinstance(event, yaml.AliasEvent):
            raise self._refuse(f"'*{event.anchor}' is an alias; aliases are not allowed", line, "Write the value out.")
        if event.anchor is not None:
            raise self._refuse(f"'&{event.anchor}' is an anchor; anchors are not allowed", line, "Write the value out.")
        if event.tag is not None:
            raise self._refuse(f"'{event.tag}' is a tag; tags are not allowed", line, "Remove it; quote what is text.")
        level = self._levels[-1] if self._levels else None
        if level is not None and isinstance(level.container, dict) and level.key is None:
            self._key(event, line, level, level.container)
            return
        if isinstance(event, yaml.ScalarEvent):
            self._put(self._scalar(event, line), line)
            return
        if len(self._levels) >= MAX_DEPTH:
            raise self._refuse(f"more than {MAX_DEPTH} levels of nesting", line, "Write it flatter.")
        container: dict[str, Any] | list[Any] = {} if isinstance(event, yaml.MappingStartEvent) else []
        self._levels.append(_Level(self._put(container, line), container))

    def _key(self, event: Any, line: int, level: _Level, mapping: dict[str, Any]) -> None:
        if not isinstance(event, yaml.ScalarEvent):
            raise self._refuse("a key is not text", line, "Write keys as plain words; quote '{{ … }}'.", level.path)
        key = event.value
        if not key.isprintable() or len(key) > MAX_KEY:
            raise self._refuse("a key holds control characters, or is too long", line, "Correct the key.", level.path)
        path = (*level.path, key)
        if key == "<<" and event.implicit[0]:
            raise self._refuse("'<<' is a merge key; merge keys are not allowed", line, "Write the keys out.", path)
        if key in mapping:
            first = self.lines[path]
            raise self._refuse(f"'{key}' stands here twice; first in line {first}", line, "Remove one of them.", path)
        self.lines[path] = line
        level.key = key

    def _scalar(self, event: Any, line: int) -> Any:
        if not event.implicit[0]:
            return event.value
        try:
            return core_scalar(event.value)
        except ValueError as error:
            raise self._refuse(str(error), line, "Write a finite number, or put text into quotes.") from None

    def _put(self, value: Any, line: int) -> KeyPath:
        """Puts a value where it belongs, and gives its path."""
        if not self._levels:
            self.root = value
            return ()
        level = self._levels[-1]
        if isinstance(level.container, list):
            path = (*level.path, len(level.container))
            level.container.append(value)
            self.lines[path] = line
            return path
        path = (*level.path, level.key or "")
        level.container[level.key or ""] = value
        level.key = None
        return path


_ODD_BREAK = re.compile("[\r\x85\u2028\u2029\ufeff]")


class _CoreDumper(yaml.SafeDumper):
    """Writes values so that `read_yaml` reads the same: quotes what the core schema would read as no text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # Line breaks other than \n survive in double quotes only.
    style = '"' if _ODD_BREAK.search(value) else "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_CoreDumper.yaml_implicit_resolvers = {}
_RESOLVERS: Iterable[tuple[str, re.Pattern[str], str]] = (
    ("null", _NULL, "nN~"),
    ("bool", re.compile(f"{_TRUE.pattern}|{_FALSE.pattern}"), "tTfF"),
    ("int", _INT, "-+0123456789"),
    ("float", re.compile(f"{_FLOAT.pattern}|{_NOT_FINITE.pattern}"), "-+.0123456789"),
    ("merge", re.compile("<<"), "<"),
)
for _tag, _pattern, _first in _RESOLVERS:
    # The dumper tests only the start of a text, hence the `\\Z`.
    _CoreDumper.add_implicit_resolver(
        f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern.pattern})\Z"), list(_first) + [""] * (_tag == "null")
    )
_CoreDumper.add_representer(str, _text)


def write_yaml(value: Mapping[str, Any]) -> str:
    """YAML text that `read_yaml` reads back as an equal value."""
    text: str = yaml.dump(
        dict(value), Dumper=_CoreDumper, sort_keys=False, allow_unicode=True, width=110, default_flow_style=False
    )
    return text
