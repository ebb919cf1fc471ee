import json

import pytest

from lbt_sim.errors import TaskError
from lbt_sim.tasks.files import MAX_LINE, read_csv, read_jsonl


def write(path, content):
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def test_jsonl_tolerates_byte_order_mark_crlf_blank_lines_and_a_missing_last_newline(tmp_path):
    path = write(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"q": 1}\r\n\r\n  \n{"q": "\xe2\x80\xa8 in a string"}')
    table = read_jsonl(path, "a.jsonl")
    assert [(row.number, row.line) for row in table.rows] == [(1, 1), (2, 4)]
    assert table.rows[1].values == {"q": "\u2028 in a string"}
    assert str(table.rows[1]) == "a.jsonl:4"


def test_digest_tells_versions_of_a_file_apart(tmp_path):
    first = read_jsonl(write(tmp_path / "a.jsonl", '{"q": 1}'), "a.jsonl")
    second = read_jsonl(write(tmp_path / "a.jsonl", '{"q": 2}'), "a.jsonl")
    assert first.sha256 != second.sha256


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{oops", "Not JSON"),
        ("[1, 2]", "a list where an object"),
        ('"text"', "a string where an object"),
        ("null", "null where an object"),
        ('{"q": NaN}', "NaN is not a JSON number"),
        ('{"q": -Infinity}', "-Infinity is not a JSON number"),
        ('{"q": ' + "[" * 100_000 + "}", "nested too deeply"),
        ('{"q": ' + "9" * 5000 + "}", "Not usable JSON"),
        (b'{"q": "\xff"}', "Byte 0xff is not UTF-8"),
        ('{"q": "' + "x" * MAX_LINE + '"}', "at most 1,000,000"),
    ],
    ids=["broken", "list", "string", "null", "nan", "infinity", "deep", "huge-number", "latin-1", "long"],
)
def test_bad_line_is_named(tmp_path, line, says):
    bad = line if isinstance(line, bytes) else line.encode()
    with pytest.raises(TaskError, match=says) as caught:
        read_jsonl(write(tmp_path / "a.jsonl", b'{"q": 1}\n' + bad), "a.jsonl")
    assert str(caught.value.where) == "a.jsonl:2"


@pytest.mark.parametrize("read", [read_jsonl, read_csv])
def test_missing_file_and_folder_are_errors_of_the_task(tmp_path, read):
    with pytest.raises(TaskError, match="no such file"):
        read(tmp_path / "none", "none")
    with pytest.raises(TaskError, match="not a file"):
        read(tmp_path, "folder")


def test_csv_reads_quoted_fields_over_several_lines_and_keeps_line_numbers(tmp_path):
    path = write(tmp_path / "a.csv", b'\xef\xbb\xbfq,a\r\n"one, and\r\nmore",Yes\r\n\r\ntwo,No\r\n')
    rows = read_csv(path, "a.csv").rows
    assert [row.values for row in rows] == [{"q": "one, and\r\nmore", "a": "Yes"}, {"q": "two", "a": "No"}]
    assert [row.line for row in rows] == [2, 5]


@pytest.mark.parametrize(
    ("content", "line", "says"),
    [
        ("", 1, "The file is empty"),
        ("q,q\n1,2\n", 1, "stand twice"),
        ("q,\n1,2\n", 1, "empty or stand twice"),
        ("q,a\n1,2\n1,2,3\n", 3, "3 fields where the header has 2"),
        ('q,a\n1,"unclosed\n', 2, "Not CSV"),
        (b"q,a\n1,\xe9\n", 2, "not UTF-8"),
    ],
    ids=["empty", "twice", "unnamed", "too-many", "unclosed", "latin-1"],
)
def test_bad_csv_is_named(tmp_path, content, line, says):
    with pytest.raises(TaskError, match=says) as caught:
        read_csv(write(tmp_path / "a.csv", content), "a.csv")
    assert caught.value.where.line == line


def test_last_of_duplicate_keys_counts(tmp_path):
    assert read_jsonl(write(tmp_path / "a.jsonl", '{"q": 1, "q": 2}'), "a").rows[0].values == json.loads('{"q": 2}')
