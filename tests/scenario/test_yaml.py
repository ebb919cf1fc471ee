"""YAML is read strictly, and every mistake has its line."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lbt_sim.errors import Place, ScenarioError
from lbt_sim.scenario.yaml import MAX_BYTES, dotted, parse_path, read_yaml, read_yaml_file, write_yaml


def mistake(text: str) -> ScenarioError:
    with pytest.raises(ScenarioError) as caught:
        read_yaml(text, "x.yaml")
    assert caught.value.status == 2
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Yes", "Yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("true", True),
        ("FALSE", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("1e-3", 0.001),
        (".5", 0.5),
        ("5.", 5.0),
        ("0o17", 15),
        ("017", 17),
        ("0x1F", 31),
        ("1_000", "1_000"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("'1'", "1"),
        ('"true"', "true"),
    ],
)
def test_scalars_are_those_of_the_core_schema(text: str, value: Any) -> None:
    found = read_yaml(f"k: {text}\n", "x.yaml").value["k"]
    assert (found, type(found)) == (value, type(value))


def test_keys_are_text_as_written() -> None:
    assert read_yaml("{0: a, 1e3: b, true: c, no: d}", "x").value == {"0": "a", "1e3": "b", "true": "c", "no": "d"}


def test_places_name_file_line_and_key_and_fall_back_to_the_nearest_key_above() -> None:
    document = read_yaml("a:\n  b:\n    - x: 1\n    - y: 2\n", "f.yaml")
    assert document.place(("a", "b", 1, "y")) == Place("f.yaml", 4, "a.b[1].y")
    assert document.place(("a", "b", 1, "z", "deep")) == Place("f.yaml", 4, "a.b[1].z.deep")
    assert document.place(("nowhere",)) == Place("f.yaml", 1, "nowhere")
    assert document.at(("a", "b", 0, "x")) == 1
    assert document.at(("a", "c", 0)) is None


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a: 1\nb: [1\nc: 2\n", 3, "not YAML"),
        ("a: 1\n\tb: 2\n", 2, "not YAML"),
        ("a: b: c\n", 1, "not YAML"),
        ("a: &x 1\n", 1, "anchor"),
        ("a: 1\nb: *x\n", 2, "alias"),
        ("a: 1\n<<: {b: 2}\n", 2, "merge key"),
        ("a: !!str 1\n", 1, "tag"),
        ("a: !!python/object/apply:os.system [ls]\n", 1, "tag"),
        ("a: 1\nb: 2\na: 3\n", 3, "twice; first in line 1"),
        ("a: {b: 1, b: 2}\n", 1, "twice"),
        ("- a\n", 1, "not a mapping"),
        ("", 1, "empty"),
        ("just text\n", 1, "not a mapping"),
        ("a: 1\n---\nb: 2\n", 2, "second document"),
        ("a: .nan\n", 1, ".nan"),
        ("a: 1\nb: -.inf\n", 2, "-.inf"),
        ("a: 1e999\n", 1, "too large"),
        ("a: " + "9" * 5000, 1, "5000 characters"),
        ("? [a]\n: 1\n", 1, "key is not text"),
        ("{{ x }}: 1\n", 1, "key is not text"),
        ('"a\\e[31m": 1\n', 1, "control characters"),
    ],
)
def test_what_is_refused_is_told_with_its_line(text: str, line: int, says: str) -> None:
    error = mistake(text)
    assert says in error.what
    assert error.where is not None
    assert (error.where.file, error.where.line) == ("x.yaml", line)


def test_a_bomb_of_aliases_is_refused_at_its_first_anchor() -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"{b}: &{b} [*{a}, *{a}]\n" for a, b in zip("abcdef", "bcdefg", strict=True))
    assert "anchor" in mistake(bomb).what


@pytest.mark.parametrize("text", ["a: " + "[" * 100_000, "a: " + "{x: " * 50_000, "- " * 50_000 + "a"])
def test_deep_nesting_is_refused_and_not_followed(text: str) -> None:
    assert "40 levels" in mistake(text).what


def test_forty_levels_are_read() -> None:
    read_yaml("a: " + "[" * 39 + "]" * 39, "x")
    assert "40 levels" in mistake("a: " + "[" * 40 + "]" * 40).what


def test_too_many_values_are_refused() -> None:
    assert "100,000" in mistake("a: [" + "1," * 100_001 + "]").what


def test_a_large_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "large.yaml"
    with file.open("wb") as stream:
        stream.truncate(50 << 20)
    with pytest.raises(ScenarioError, match=r"52,428,800 bytes; at most 1,048,576"):
        read_yaml_file(file)
    with file.open("wb") as stream:
        stream.truncate(MAX_BYTES)
    with pytest.raises(ScenarioError, match="NUL"):
        read_yaml_file(file)


def test_files_that_are_no_text_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.yaml"
    file.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ScenarioError, match="not UTF-8") as caught:
        read_yaml_file(file)
    assert caught.value.where == Place(str(file), 2)
    with pytest.raises(ScenarioError, match="not a file"):
        read_yaml_file(tmp_path)
    with pytest.raises(ScenarioError, match="No such file"):
        read_yaml_file(tmp_path / "none.yaml")
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ScenarioError, match="not a file"):
        read_yaml_file(tmp_path / "pipe")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"\xef\xbb\xbfkind: scenario\n")
    assert read_yaml_file(tmp_path / "x.yaml").value == {"kind": "scenario"}


text = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
words = st.sampled_from(
    ["yes", "0o7", "1e3", "~", "", "null", "<<", "1_0", "a: b", " x\ny", "x \n", "\n", "\x85", "\r"]
)
scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False)
keys = text.filter(str.isprintable)
values = st.recursive(scalars | text | words, lambda v: st.lists(v, max_size=3) | st.dictionaries(keys, v, max_size=3))


@settings(deadline=None)
@given(st.dictionaries(keys, values, max_size=4))
def test_what_is_written_is_read_back(value: dict[str, Any]) -> None:
    assert read_yaml(write_yaml(value), "x").value == value


@settings(deadline=None, max_examples=50)
@given(st.lists(st.from_regex(r"[a-z_]{1,5}", fullmatch=True) | st.integers(0, 99), min_size=1, max_size=5))
def test_a_dotted_path_is_parsed_back(path: list[str | int]) -> None:
    assert parse_path(dotted(path)) == tuple(path)
