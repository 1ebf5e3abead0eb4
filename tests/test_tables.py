"""Tables from anywhere: what is read of them, and the one sentence for what cannot be."""

import os
import re
import time

import pytest

from hdcid_cli.core import tables
from hdcid_cli.core.errors import InputError


def write(tmp_path, content):
    path = tmp_path / "table.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows(path, *columns):
    return [(row.line, *(row[name] for name in columns)) for row in tables.table(path, *columns)]


@pytest.mark.parametrize(
    "content",
    [
        "id,split\na,train\nb,test\n",
        "id\tsplit\na\ttrain\nb\ttest\n",
        "id;split\na;train\nb;test",
        "\ufeffid,split\r\na,train\r\nb,test\r\n",
        " id , split \na, train\n b ,test\n",
        "ID,Split\na,train\nb,test\n",
        "id,\tsplit\t\na,\ttrain\nb,test\n",
        '"id","split"\n"a","train"\n"b","test"\n',
        "label,id,split\nx,a,train\ny,b,test\n",
        "id,split\ra,train\rb,test\r",
        "label\tid\tsplit\nx, y\ta\ttrain\nz\tb\ttest\n",  # commas within cells of a table of tabs
    ],
)
def test_the_same_table_however_it_was_written(tmp_path, content):
    assert rows(write(tmp_path, content), "id", "split") == [(2, "a", "train"), (3, "b", "test")]


def test_lines_are_counted_as_an_editor_does(tmp_path):
    path = write(tmp_path, 'id,caption\n\na,"one\ntwo"\n\nb,three\n')
    assert rows(path, "id", "caption") == [(4, "a", "one\ntwo"), (6, "b", "three")]


def test_separators_of_paragraphs_are_letters(tmp_path):
    assert rows(write(tmp_path, "id,caption\na,x\u2028y\x0bz\n"), "caption") == [(2, "x\u2028y\x0bz")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"id,label\na,b\n", "has no column 'split'; its first line should be 'id,split'"),
        (b"id,split\na\n", "line 2: 1 cells where the header has 2"),
        (b"id,id,split\na,b,train\n", "line 1: the column 'id' is there twice"),
        (b"id,split\na,\xff\n", "line 2: not text in UTF-8"),
        (b"id,split\na,b\nc,\0\n", "line 3: a null character"),
        ("id,split\na,b\n".encode("utf-16"), "line 1: a null character"),
        (b'id,split\na,"' + b"x" * 200_000 + b'"\n', r"line 2: not a row of a table \(field larger than"),
        (b'id,split\na,"b\n' + b"c,d\n" * 60_000, r"line \d+: not a row of a table \(field larger than"),
        (b"id,split\n" + b"x" * (2 << 20), "line 2: more than 1,048,576 bytes"),
        (b"x" * 200_000 + b",split\n", "line 1: not the header of a table"),
    ],
)
def test_what_cannot_be_read_is_one_sentence_with_its_line(tmp_path, content, message):
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=message) as caught:
        rows(path, "id", "split")
    assert str(path) in str(caught.value) and len(str(caught.value)) < 500


def test_what_is_no_file_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "is a pipe or a device"),
        ("/dev/zero", "is a pipe or a device"),
        (tmp_path, "is a folder"),
        (tmp_path / "nowhere.csv", "There is no file"),
    ):
        with pytest.raises(InputError, match=message):
            rows(path, "id")


def test_a_million_lines_take_seconds(tmp_path):
    path = write(tmp_path, "id,split\n" + "clip,train\n" * 1_000_000)
    start = time.perf_counter()
    assert sum(1 for _ in tables.table(path, "id", "split")) == 1_000_000
    assert time.perf_counter() - start < 20


def test_names_are_lines_without_what_follows_a_tab(tmp_path):
    assert tables.names(write(tmp_path, "Skiing\n\n Bowling \tbowling impact\n")) == ("Skiing", "Bowling")


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e300", "1,5", "", "zero", "9" * 5000])
def test_a_time_is_a_number_of_seconds(tmp_path, text):
    with pytest.raises(InputError, match=re.escape(f"{tmp_path}, line 7: ") + ".* is not a time in seconds") as caught:
        tables.seconds(text, tmp_path, 7)
    assert len(str(caught.value)) < 300
    assert tables.seconds(" 1.5 ", tmp_path, 7) == 1.5
