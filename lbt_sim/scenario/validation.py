"""From a document to a checked model: every mistake at once, each with its place, in plain words."""

from __future__ import annotations

import re
import types
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from lbt_sim.errors import InputError, Place, ScenarioError, nearest
from lbt_sim.scenario.yaml import Document, KeyPath

__all__ = ["MOST_MISTAKES", "SeveralMistakesError", "as_one", "find_mistakes", "show", "validate_model"]

MOST_MISTAKES = 20

Model = TypeVar("Model", bound=BaseModel)


class SeveralMistakesError(ScenarioError):
    """Several mistakes, told together; its own fields are those of the first.

    Attributes:
        mistakes: Each of them.
    """

    def __init__(self, mistakes: Sequence[InputError]) -> None:
        first = mistakes[0]
        super().__init__(first.what, where=first.where, valid=first.valid, remedy=first.remedy)
        self.mistakes = tuple(mistakes)

    def __str__(self) -> str:
        parts = [str(mistake) for mistake in self.mistakes[:MOST_MISTAKES]]
        more = len(self.mistakes) - MOST_MISTAKES
        parts.append(f"{len(self.mistakes)} mistakes" + (f", {more} of them not shown" if more > 0 else ""))
        return "\n".join(parts)


_NUMBER = re.compile(r"\[\d+\]")


def as_one(mistakes: Sequence[InputError]) -> InputError:
    """One error that tells all of at least one mistake; what is wrong alike with several items of a line once."""
    told: dict[str, InputError] = {}
    for mistake in mistakes:
        told.setdefault(_NUMBER.sub("[]", str(mistake)), mistake)
    return mistakes[0] if len(told) == 1 else SeveralMistakesError(list(told.values()))


def validate_model(document: Document, model: type[Model], at: Sequence[str | int] = ()) -> Model:
    """The part of a document at `at`, as a model.

    Args:
        document: What was read.
        model: The shape that it is to have.
        at: Where in the document this part stands.

    Raises:
        ScenarioError: Something does not fit; a `SeveralMistakesError` when more than one thing does not.
    """
    value, mistakes = find_mistakes(document, model, at)
    if value is None:
        raise as_one(mistakes)
    return value


def find_mistakes(
    document: Document, model: type[Model], at: Sequence[str | int] = ()
) -> tuple[Model | None, list[ScenarioError]]:
    """As `validate_model`, but gives the model, or None with all mistakes, in the order of the file."""
    prefix = tuple(at)
    try:
        return model.model_validate(document.at(prefix)), []
    except ValidationError as error:
        found = [_Found(details, *_locate(model, details["loc"])) for details in error.errors(include_url=False)]
    mistakes = [_say(one, document, prefix) for one in _settle(found, document, prefix)]
    mistakes.sort(key=lambda mistake: (mistake.where.line or 0) if mistake.where else 0)
    return None, mistakes


# --- where a mistake stands --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Found:
    """An error of pydantic, with its location translated.

    Attributes:
        details: What pydantic says.
        path: The keys that lead to it, without pydantic's own marks.
        crossed: The unions on the way: the path of each, and the alternative that this error is about.
        owner: The model that has the last key.
        about: The last field on the way, with its docstring.
        wanted: Instead of `details`, where no alternative of a union fits: what would.
    """

    details: ErrorDetails
    path: KeyPath
    crossed: tuple[tuple[KeyPath, Any], ...] = ()
    owner: type[BaseModel] | None = None
    about: str = ""
    wanted: tuple[str, ...] = ()


def _locate(model: type[BaseModel], loc: Sequence[str | int]) -> tuple[KeyPath, Any, type[BaseModel] | None, str]:
    kind: Any = model
    path: list[str | int] = []
    crossed: list[tuple[KeyPath, Any]] = []
    owner: type[BaseModel] | None = None
    about = ""

    for part in loc:
        if part == "[key]":  # the mistake is in a mapping's key, which the part before has named
            break
        kind = _bare(kind)
        alternatives = _alternatives(kind)
        if alternatives:
            kind = next((one for one in alternatives if _is_tag(str(part), one)), None)
            crossed.append((tuple(path), kind))
            continue
        path.append(part)
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            owner = kind
            info = next((i for n, i in kind.model_fields.items() if part in (n, i.alias)), None)
            kind = info.annotation if info else None
            about = f"`{part}`: {info.description}" if info and info.description else ""
        else:
            owner = None
            arguments = get_args(kind)
            kind = arguments[-1] if arguments else None
    return tuple(path), tuple(crossed), owner, about


def _bare(kind: Any) -> Any:
    """The annotation without `Annotated` and without `| None`."""
    while get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) in (Union, types.UnionType):
        rest = [one for one in get_args(kind) if one is not type(None)]
        if len(rest) == 1:
            return _bare(rest[0])
    return kind


def _alternatives(kind: Any) -> list[Any]:
    if get_origin(kind) not in (Union, types.UnionType):
        return []
    return [_bare(one) for one in get_args(kind) if one is not type(None)]


def _is_tag(tag: str, kind: Any) -> bool:
    """Whether pydantic's mark in a location names this alternative of a union."""
    origin = get_origin(kind)
    if origin is Literal:
        return tag.startswith("literal[")
    if origin in (list, dict):
        return tag.startswith(f"{origin.__name__}[")
    name: str = kind.__name__
    return tag in (name, f"constrained-{name}") or tag.endswith(f" {name}]")


def _shape(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, (int, float)):
        return "number"
    return {"str": "text", "dict": "mapping", "list": "list"}.get(type(value).__name__, "nothing")


def _shape_of(kind: Any) -> str:
    """The shape of the values that an alternative of a union is for."""
    if get_origin(kind) is list:
        return "list"
    if get_origin(kind) is Literal:
        return "choice"
    scalars = {"int": "number", "float": "number", "bool": "bool", "str": "text"}
    return scalars.get(str(getattr(kind, "__name__", "")), "mapping")


def _settle(found: Sequence[_Found], document: Document, prefix: KeyPath, level: int = 0) -> Iterable[_Found]:
    """Of the errors of a union's alternatives keeps those of the one that was meant, or makes one of them all."""
    unions: dict[KeyPath, list[_Found]] = {}
    for one in found:
        if len(one.crossed) <= level:
            yield one
        else:
            unions.setdefault(one.crossed[level][0], []).append(one)
    for path, errors in unions.items():
        value = document.at((*prefix, *path))
        meant = [one for one in errors if _shape_of(one.crossed[level][1]) == _shape(value)]
        if meant and _shape(value) != "text":
            yield from _settle(meant, document, prefix, level + 1)
            continue
        wanted = tuple(dict.fromkeys(_wanted(one.crossed[level][1]) for one in errors))
        details: ErrorDetails = {"type": "union", "loc": path, "msg": "", "input": value}
        kinds = [one.crossed[level][1] for one in errors]
        details["ctx"] = {
            "choices": [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
        }
        yield _Found(details, path, about=errors[0].about, wanted=wanted)


def _wanted(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return " or ".join(f"'{choice}'" for choice in get_args(kind))
    if kind is int or kind is float:
        return "a whole number" if kind is int else "a number"
    return {"text": "text", "bool": "true or false", "list": "a list", "mapping": "a mapping"}.get(_shape_of(kind), "?")


# --- what is said about it ---------------------------------------------------------------------------------


def show(value: Any) -> str:
    """A value as it stands in a message: short, and without control characters."""
    if isinstance(value, dict):
        return "a mapping" if value else "an empty mapping"
    if isinstance(value, (list, tuple)):
        return "a list" if value else "an empty list"
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return str(value).lower()
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:56]}…{text[0] if isinstance(value, str) else ''}"


_WANTED = {
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "bool_type": "true or false",
    "bool_parsing": "true or false",
    "string_type": "text",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "finite_number": "a finite number",
}
_BOUNDS = {
    "greater_than": ("gt", "more than"),
    "greater_than_equal": ("ge", "at least"),
    "less_than": ("lt", "less than"),
    "less_than_equal": ("le", "at most"),
}


def _say(found: _Found, document: Document, prefix: KeyPath) -> ScenarioError:
    where = document.place((*prefix, *found.path))
    kind = found.details["type"]
    if kind == "extra_forbidden":
        return _unknown_key(found, where)
    if kind == "missing":
        key = str(found.path[-1])
        remedy = f"Add {_on_one_line(found.about) or f'`{key}: …`'}"
        return ScenarioError(f"the key '{key}' is missing", where=where, remedy=remedy)
    what, valid = _sentence(found, found.details.get("ctx", {}))
    return ScenarioError(what, where=where, valid=valid, remedy=_on_one_line(found.about) or "Correct the value.")


def _unknown_key(found: _Found, where: Place) -> ScenarioError:
    key = str(found.path[-1])
    fields = found.owner.model_fields if found.owner else {}
    keys = sorted(info.alias or name for name, info in fields.items())
    near = nearest(key, keys)
    what = f"'{key}' is not a key here" + (f"; did you mean '{near}'?" if near else "")
    return ScenarioError(what, where=where, valid=keys, remedy="Correct the key or remove it.")


def _sentence(found: _Found, context: Mapping[str, Any]) -> tuple[str, Sequence[str]]:
    """What is wrong, and the valid choices."""
    details = found.details
    kind, value = details["type"], details["input"]
    if kind == "union":
        near = nearest(value, map(str, context["choices"])) if isinstance(value, str) else None
        what = f"found {show(value)}; wanted {', or '.join(found.wanted)}"
        return (f"{what}; did you mean '{near}'?" if near else what), ()
    if kind == "literal_error":
        valid = [str(choice) for choice in _choices(found)]
        near = nearest(value, valid) if isinstance(value, str) else None
        return f"{show(value)} is not valid here" + (f"; did you mean '{near}'?" if near else ""), valid
    if kind == "string_pattern_mismatch":
        name = found.path[-1] if found.details["loc"][-1:] == ("[key]",) else value
        rule = "a letter, then letters, digits, '-' and '_', at most 64"
        return f"{show(name)} cannot be used as a name; wanted {rule}", ()
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"found {show(value)}; wanted {words} {context[bound]}", ()
    if kind == "too_short":
        return f"found {show(value)}; wanted at least {context['min_length']}", ()
    if kind == "value_error":
        return str(context["error"]), ()
    if kind in _WANTED:
        quoted = " (in quotes)" if kind == "string_type" and _shape(value) in ("number", "bool") else ""
        return f"found {show(value)}; wanted {_WANTED[kind]}{quoted}", ()
    return f"found {show(value)}: {details['msg'][:1].lower()}{details['msg'][1:]}", ()


def _choices(found: _Found) -> Sequence[Any]:
    """The choices of a literal, from pydantic's text `'a', 'b' or 'c'`."""
    expected = str(found.details.get("ctx", {}).get("expected", ""))
    parts = [part for piece in expected.split(", ") for part in piece.split(" or ")]
    return [part.strip().strip("'") for part in parts if part]


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
