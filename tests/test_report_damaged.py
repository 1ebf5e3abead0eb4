"""`report` on generated damage in every file that it reads: one sentence, and what is good is reported."""

import json
import os
import resource
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from made_records import lines, record
from test_report import report

from hdcid_cli.commands.report import FORMATS, LAYOUTS
from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.records import open_set_curves, timeline
from hdcid_cli.report import figures

# More with HDCID_EXAMPLES=1000.
EXAMPLES = int(os.environ.get("HDCID_EXAMPLES", "12"))

GOOD = record(value=44.0, noise=0.1)
RESULT = record(
    value=31.25, layers=1, interval=[28.0, 34.0], toc_criterion="both", modalities="avt", pretrain_clips=280, n_fit=9,
    epoch=3, probe_epochs=50, probe_lr=0.002, encoder_dropout=0.1, backbone="vggish", checkpoint_name="run",
    data_digest="a" * 16, per_class={"dog": 1.0}, open_set=5, known=["a", "b"], threshold=0.4, noise=0.2,
)  # fmt: skip
EVENTS = [{"label": "dog", "start": 1, "end": 2}]
CLIP = timeline("clip", 10.0, EVENTS, [], task="avvp", train="v", test="a", data="LLP")
OPEN = open_set_curves(
    {"edges": [0.0, 0.5, 1.0], "known": [1, 9], "unknown": [6, 2]}, {"fpr": [0, 0.5, 1], "ccr": [0.2, 0.6, 0.7]},
    task="ave", train="v", test="a", data="AVE", open_set=5, threshold=0.4, score="softmax", method="cpc", seed=0,
)  # fmt: skip

TEXTS = ["\x1b]0;x\x07", "=1+1", "\ud800", "a\n\nb", "\u202e", "$\\x$", "x" * 20_000]
NUMBERS = [10**400, 1e308, -1e308, 5e-324, 2**63, -1, 0, 1e12]
ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(NUMBERS + TEXTS) | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)


def places(value, path=()):
    """Where something can be put in another's place: every key of an object, and of the objects and lists in it."""
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, each in inner:
        yield from places(each, (*path, name))


def changed(value, path, new):
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = changed(value[path[0]], path[1:], new)
    return copy


@st.composite
def damaged_lines(draw, whole):
    """A line of a file, its values or its bytes damaged."""
    found = whole
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([path for path in places(found) if path] or [()]))
        found = changed(found, path, draw(ODD))
    raw = bytearray(json.dumps(found).encode())
    for _ in range(draw(st.integers(0, 2))):
        raw[draw(st.integers(0, len(raw) - 1))] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        del raw[draw(st.integers(0, len(raw))) :]
    return bytes(raw) + b"\n"


@pytest.fixture(scope="module", autouse=True)
def _without_pdf():
    """Drawings are the same in both formats, and one is enough here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "pdf", None)
        yield


@pytest.mark.filterwarnings("error")
@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_whatever_is_in_one_line_the_good_ones_are_reported(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("damage")
    odd = data.draw(st.lists(damaged_lines(RESULT), min_size=1, max_size=2))
    (folder / "r.jsonl").write_bytes(lines(GOOD).encode() + b"".join(odd) + lines(GOOD | {"layers": 4}).encode())
    arguments = [folder / "r.jsonl", "--format", data.draw(st.sampled_from(FORMATS)), "--metrics", "all"]
    arguments += ["--spread", data.draw(st.sampled_from(["deviation", "interval", "none"])), "--best"]
    if data.draw(st.booleans()):
        arguments += ["--layout", data.draw(st.sampled_from(LAYOUTS))]
    pictures = data.draw(st.sampled_from(["", "over", "timelines", "curves"]))
    if pictures:
        arguments += ["--figures", folder / "figures"]
    if pictures == "over":
        arguments += ["--over", "noise"]
    if pictures == "timelines":
        (folder / "t.jsonl").write_bytes(lines(CLIP).encode() + data.draw(damaged_lines(CLIP)))
        arguments += ["--timelines", folder / "t.jsonl"]
    if pictures == "curves":
        (folder / "c.jsonl").write_bytes(lines(OPEN).encode() + data.draw(damaged_lines(OPEN)))
        arguments += ["--curves", folder / "c.jsonl"]
    started, before = time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    outcome = report(*arguments)
    assert time.process_time() - started < 5 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20
    assert outcome.exception is None or isinstance(outcome.exception, HdcidError), repr(outcome.exception)
    if outcome.exception is None:
        assert outcome.return_value in (0, 3)
        outcome.stdout.encode()
        assert all(message.isprintable() for message in outcome.stderr.splitlines())
        # An odd line may be a result as well, and contradict a good one: both are named then.
        assert "44.0" in outcome.stdout or "--layout" in arguments or "contradictory" in outcome.stderr
        if outcome.return_value == 3:
            assert any(f"{name}.jsonl, line " in outcome.stderr for name in "rtc")
