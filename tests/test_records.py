"""Records are read with every field checked, and one odd line costs no other."""

import io
import json
from dataclasses import fields

import described
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hdcid_cli.core import json_lines
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.names import count_of_recordings
from hdcid_cli.core.records import (
    CURVES_SCHEMA,
    READ,
    SCHEMA,
    TIMELINE_SCHEMA,
    Result,
    open_set_curves,
    read_records,
    result,
    timeline,
    with_seen,
)

GOOD = result(
    task="ave", train="v", test="a", metric="precision", value=44.0, n=40, protocol="heldout", method="cpc,cmcm",
    seed=0, interval=[40.5, 47.5], chance=10.0, data="AVE", layers=2, quantizer="vq", codebook=400, toc="none",
    pretrain_clips=280, per_class={"dog": 50.0}, mine="extra",
)  # fmt: skip
CLIP = timeline("c", 10.0, [{"label": "dog", "start": 1, "end": 2.5}], [], task="avvp", train="v", test="a")
CURVES = open_set_curves(
    {"edges": [0.1, 0.5, 0.9], "known": [1, 9], "unknown": [4, 2]}, {"fpr": [0, 0.5, 1], "ccr": [0.2, 0.6, 0.7]},
    task="ave", open_set=5, threshold=0.4,
)  # fmt: skip
ANY = {SCHEMA: GOOD, TIMELINE_SCHEMA: CLIP, CURVES_SCHEMA: CURVES}


def read(*lines: object, schema=SCHEMA):
    """(what was read, what was complained of); lines are bytes, or objects to write as JSON."""
    raw = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    complaints: list[str] = []
    return [record for _, record in read_records(io.BytesIO(raw), "F", complaints.append, schema)], complaints


def test_a_result_keeps_every_field_and_the_unknown_ones_apart():
    (found,), complaints = read(GOOD)
    assert not complaints and found.interval == (40.5, 47.5) and found.more == {"mine": "extra"}
    assert found.get("mine") == "extra" and found.get("value") == 44.0 and found.get("nothing") is None
    known = {each.name for each in fields(Result)} - {"more"}
    assert {name: found.get(name) for name in known & GOOD.keys() - {"interval"}} == {
        name: GOOD[name] for name in known & GOOD.keys() - {"interval"}
    }


def test_the_manual_names_every_field_of_a_result():
    assert {each.name for each in fields(Result)} - {"more"} <= described.fields()["result"]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"value": "high"}, "has the value 'high', which is not a number."),
        ({"value": True}, "not a number"),
        ({"value": 1e308}, "not a number"),
        ({"task": ["ave"]}, "has the task ['ave'], which is not a text."),
        ({"task": None}, "not a text"),
        ({"method": "x" * 20000}, "not a text"),
        ({"layers": "2"}, "has the layers '2', which is not a whole number."),
        ({"layers": 2.5}, "not a whole number"),
        ({"n": None}, "not a whole number"),
        ({"interval": [1]}, "not two numbers"),
        ({"interval": [1, "2"]}, "not two numbers"),
        ({"interval": {"low": 1}}, "not two numbers"),
        ({"versions": "0.1"}, "not an object"),
        ({"toc": [1]}, "not a text or a whole number"),
        ({"checkpoint": 7}, "has the checkpoint 7, which is not a text."),
        ({"schema": "hdcid.result/9"}, "is of the schema 'hdcid.result/9'"),
    ],
)
def test_wrong_types_cost_their_line_alone(change, complaint):
    found, complaints = read(GOOD, GOOD | change, GOOD)
    assert len(found) == 2 and len(complaints) == 1
    assert complaints[0].startswith("F, line 2 ") and complaint in complaints[0] and len(complaints[0]) < 200


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (json.dumps(GOOD).replace("44.0", "1" * 400).encode(), "has the number 1111"),
        (json.dumps(GOOD).replace("44.0", "1" * 5000).encode(), "has the number 1111"),
        (json.dumps(GOOD).replace("44.0", "1e999").encode(), "has the number 1e999"),
        (json.dumps(GOOD).replace("44.0", "NaN").encode(), "has the number NaN"),
        (json.dumps(GOOD).replace('"extra"', "-Infinity").encode(), "has the number -Infinity"),
        (json.dumps(GOOD).replace("extra", "\\ud800").encode(), "half a character"),
        (b'{"schema": ', "is not JSON"),
        (b"[1, 2]", "is no JSON object but a list"),
        (b"\xff\xfe{}", "is not UTF-8"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a":' * 100_000, "is not JSON"),
        (b"\0\0\0", "is not JSON"),
    ],
)
def test_odd_lines_are_named_and_the_rest_is_read(line, complaint):
    found, complaints = read(GOOD, line + b"\n", b"\n", GOOD)
    assert len(found) == 2
    assert len(complaints) == 1 and complaints[0].startswith("F, line 2 ") and complaint in complaints[0]


def test_a_byte_order_mark_windows_line_ends_and_a_missing_last_one_are_read():
    raw = b"\xef\xbb\xbf" + json.dumps(GOOD).encode() + b"\r\n" + json.dumps(GOOD).encode()
    assert len(read(raw)[0]) == 2


def test_a_line_that_is_too_long_is_passed_over_and_a_stream_without_end_refused(monkeypatch):
    monkeypatch.setattr(json_lines, "LINE_LIMIT", 2000)
    found, complaints = read(GOOD, b'{"a": "' + b"x" * 9000 + b'"}\n', GOOD)
    assert len(found) == 2 and complaints == ["F, line 2 is longer than 2,000 bytes."]
    monkeypatch.setattr(json_lines, "TEXT_LIMIT", 5000)
    with pytest.raises(InputError, match="F is larger than 5,000 bytes"):
        read(*[GOOD] * 100)


def test_without_a_listener_an_odd_line_is_an_error():
    with pytest.raises(InputError, match="F, line 1 is not JSON"):
        list(read_records(io.BytesIO(b"nothing"), "F"))


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seconds": 0}, "of 0 seconds"),
        ({"true": [{"label": "x", "start": 5, "end": 12}]}, "true event that is no label, start and end"),
        ({"predicted": [{"label": 1, "start": 1, "end": 2}]}, "predicted event"),
        ({"predicted": ["x"]}, "predicted event"),
        ({"predicted": {"label": 1}}, "not a list"),
        ({"clip": None}, "not a text"),
    ],
)
def test_timelines_are_checked(change, complaint):
    found, complaints = read(CLIP, CLIP | change, schema=TIMELINE_SCHEMA)
    assert len(found) == 1 and found[0].true[0].label == "dog" and found[0].task == "avvp"
    assert len(complaints) == 1 and complaint in complaints[0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"histogram": {"edges": [0, 1], "known": [1, 2], "unknown": [1]}}, "unequal length"),
        ({"histogram": {"edges": [1, 0.5, 0], "known": [1, 2], "unknown": [1, 2]}}, "edges fall"),
        ({"histogram": {"edges": [0, 0.5, 1], "known": [1, -2], "unknown": [1, 2]}}, "negative"),
        ({"histogram": {"edges": "no"}}, "edges are no list of numbers"),
        ({"oscr": {"fpr": [0, 2], "ccr": [0, 1]}}, "not within 0 and 1"),
        ({"oscr": {"fpr": [], "ccr": []}}, "unequal length"),
        ({"oscr": None}, "not an object"),
    ],
)
def test_curves_of_open_sets_are_checked(change, complaint):
    found, complaints = read(CURVES, CURVES | change, schema=CURVES_SCHEMA)
    assert len(found) == 1 and found[0].open_set == 5
    assert len(complaints) == 1 and complaint in complaints[0]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_one_line_holds_the_others_are_read(data):
    schema = data.draw(st.sampled_from(list(READ)))
    good = ANY[schema]
    odd = dict(good)
    for name in data.draw(st.lists(st.sampled_from(sorted(odd)), min_size=1, max_size=3)):
        if data.draw(st.booleans()):
            odd.pop(name, None)
        else:
            odd[name] = data.draw(VALUES)
    raw = bytearray(json.dumps(odd).encode().replace(b"\n", b" "))
    for _ in range(data.draw(st.integers(0, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255).filter(lambda byte: byte != 10))
    raw = raw[: data.draw(st.integers(1, len(raw)))]
    found, complaints = read(good, bytes(raw) + b"\n", good, schema=schema)
    assert 2 <= len(found) <= 3 and len(found) + len(complaints) <= 3
    assert all(complaint.startswith("F, line 2 ") for complaint in complaints)


def test_a_held_out_protocol_says_that_pretraining_saw_what_is_tested():
    assert with_seen("heldout", 0) == "heldout"
    assert with_seen("heldout, speaker=anna left out", 2) == "heldout, speaker=anna left out, seen in pretraining"
    assert with_seen("published", 2) == "published"  # which tests what was pretrained on
    clips = ["4YdbENYcIyE_23_33", "other", "4YdbENYcIyE_0_10"]
    assert count_of_recordings(clips, ["4YdbENYcIyE_40_50", "x"]) == 2 and count_of_recordings(clips, []) == 0
