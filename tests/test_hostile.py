"""A few cases of generated damage for every command; `python tests/hostile.py` runs a thousand of each."""

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from hostile_answers import attempt
from hostile_damage import Change
from hostile_groups import GROUPS, Case, Group
from hostile_worlds import world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

# More with HDCID_EXAMPLES=1000.
EXAMPLES = int(os.environ.get("HDCID_EXAMPLES", "6"))


@pytest.fixture(scope="module")
def worlds():
    """{name: folder} of the worlds, each made when it is first asked for."""
    with ExitStack() as stack:
        made: dict[str, Path] = {}

        def get(name: str) -> Path:
            if name not in made:
                made[name] = stack.enter_context(world(name))
            return made[name]

        yield get


@pytest.mark.parametrize("name", GROUPS)
@settings(max_examples=EXAMPLES, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_damage_is_coped_with_or_refused_in_one_sentence(name, data, worlds):
    group, original = GROUPS[name], worlds(GROUPS[name].world)
    case = data.draw(Group.cases(group, original))
    answer = attempt(group, case, original)
    assert not answer.problems, f"{' '.join(case.arguments)}, {case.changes}: {answer.problems}\n{answer.said}"


@pytest.mark.parametrize(
    "line,change,wrong",
    [
        ("info features/audio.h5", Change("data/classify.csv", "missing"), "does not name the file"),
        ("encode --device cpu", Change("features/audio.h5", "missing"), "touches codes/video.h5"),
    ],
)
def test_what_is_wrong_is_seen(line, change, wrong, worlds):
    """The judge can fail: a refusal that does not say what was damaged, and a command that writes where it may not."""
    group = Group(((line, ()),))
    Path(worlds("small"), "features/audio.h5.away").touch()
    case = Case(tuple(line.split()), (change, Change("features/audio.h5", b"\x89HDF")) if "info" in line else (change,))
    answer = attempt(group, case, worlds("small"))
    if wrong.startswith("does not"):
        answer = attempt(group, Case(tuple(["info", "nowhere"]), (change,)), worlds("small"))
    assert wrong in answer.problems
