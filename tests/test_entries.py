"""YAML and JSON from anywhere: plain values, or one sentence with the file and the line, soon and in little memory."""

import json
import time

import pytest
import yaml
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hdcid_cli.core.entries import Entries, read_json
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.plain_yaml import parse_yaml, read_yaml

ANCHORS = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 40))
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**62), 2**62) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=20,
)


@given(values)
@settings(max_examples=100)
def test_what_other_libraries_write_is_read(value):
    assert parse_yaml(yaml.safe_dump(value), "x") == value
    assert parse_yaml(json.dumps(json.dumps(value)), "x") == json.dumps(value)


@given(st.text("abc: [],{}&*!|>\n- \"'#%@`?1.~", max_size=60))
@settings(max_examples=200)
def test_it_agrees_with_the_library_wherever_both_read(text):
    assume("1:1" not in text)  # 61, of which nobody thinks
    try:
        found = parse_yaml(text, "x")
    except InputError:
        return
    assert found == yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))


@pytest.mark.parametrize(
    "text,said",
    [
        (ANCHORS, "line 2: aliases"),
        ("[" * 100_000, "line 1: "),
        ("- " * 100_000, "line 1: "),
        ("x:\n" + "  - " * 100, "line 2: nested more than 20 deep"),
        ("x: " + "9" * 5000, "line 1: a whole number of more than 64 bits"),
        ("x: !!python/name:os.system", "line 1: tags"),
        ("x: 1\nx: 2", "line 2: the key 'x' is there twice"),
        ("? [1]\n: 2", "line 1: a key that is not a word"),
        ("--- 1\n--- 2", "line 2: a second document"),
        ("x: [1", "line 2: "),
        ("x: '\0'", "control"),
    ],
)
def test_yaml_that_is_no_plain_value_is_refused_with_its_line(text, said):
    start = time.perf_counter()
    with pytest.raises(InputError) as caught:
        parse_yaml(text, "f")
    assert f"f cannot be read as YAML ({said}" in str(caught.value) and len(str(caught.value)) < 200
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize(
    "text,said",
    [
        ("[" * 100_000, "is not JSON"),
        ('{"a": NaN}', "has the number NaN"),
        ('{"a": 1e999}', "has the number 1e999"),
        ('{"a": ' + "9" * 5000 + "}", "has the number 9999"),
        ('{"a": "\\ud800"}', "has a text with half a character"),
        ('{\n"a": }', "is not JSON"),
        ("[]", "is no JSON object"),
        ("", "is not JSON"),
    ],
)
def test_json_that_is_no_object_is_refused(tmp_path, text, said):
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError) as caught:
        read_json(tmp_path / "x.json")
    assert f"x.json {said}" in str(caught.value) and len(str(caught.value)) < 300


def test_dates_and_what_yaml_once_took_for_numbers_are_texts():
    assert parse_yaml("seed: 2024-01-01", "f") == {"seed": "2024-01-01"}
    assert parse_yaml("[3:1, 1:30:00, 1:0.5, 1_000]", "f") == ["3:1", "1:30:00", "1:0.5", "1_000"]


def test_a_file_is_read_up_to_a_limit(tmp_path):
    (tmp_path / "big.yaml").write_text("x" * (1 << 20) + "x")
    with pytest.raises(InputError, match=r"big\.yaml is larger than 1,048,576 bytes"):
        read_yaml(tmp_path / "big.yaml")


SECTION = Entries({"a": {"word": "x", "n": 3, "yes": True, "r": 0.5, "list": ["x"], "empty": None}}, "f").section("a")


@pytest.mark.parametrize(
    "ask,said",
    [
        (lambda s: s.text("n"), "f: `a.n` should be a text, not 3."),
        (lambda s: s.whole("yes"), "f: `a.yes` should be a whole number from 0, not True."),
        (lambda s: s.whole("n", most=2), "f: `a.n` should be a whole number from 0 to 2, not 3."),
        (lambda s: s.number("word"), "f: `a.word` should be a number, not 'x'."),
        (lambda s: s.flag("n"), "f: `a.n` should be true or false, not 3."),
        (lambda s: s.texts("word"), "f: `a.word` should be a list of texts, not 'x'."),
        (lambda s: s.text("none"), "f: `a.none` should be a text, not missing."),
        (lambda s: s.section("list"), "f: a.list should be a mapping, not ['x']."),
    ],
)
def test_a_value_of_another_type_is_named(ask, said):
    with pytest.raises(InputError) as caught:
        ask(SECTION)
    assert str(caught.value) == said


def test_values_of_the_right_type_are_given():
    found = (SECTION.text("word"), SECTION.whole("n"), SECTION.number("r"), SECTION.flag("yes"), SECTION.texts("list"))
    assert found == ("x", 3, 0.5, True, ("x",))
    assert SECTION.text("empty", "default") == SECTION.text("none", "default") == "default"
