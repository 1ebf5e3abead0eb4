"""A setting has one home: what a field says makes the option, and checks a keyword, a YAML file and a stored value."""

import ast
from dataclasses import dataclass, fields
from pathlib import Path

import click
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import hdcid_cli
from hdcid_cli.commands import options
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.plain_yaml import read_yaml
from hdcid_cli.core.settings import Setting, Settings, option_name, setting, settings_of
from hdcid_cli.main import cli
from hdcid_cli.training.recipes import read_recipe
from hdcid_cli.training.settings import PretrainSettings

BUNDLES = tuple(PretrainSettings.bundles().values())


@dataclass(frozen=True)
class Toy(Settings):
    rate: float = setting(0.5, "How fast.", above=0, most=1, published=0.1)
    steps: int = setting(3, "How often.", least=1)
    way: str = setting("up", "Which way.", choices=("up", "down"))
    marks: tuple[int, ...] = setting((1, 2), "Where.", least=0)
    loud: bool = setting(False, "Whether to say so.")
    end: int | None = setting(None, "When to stop.", least=1)


@click.command(cls=options.Command, name="toy")
@options.settings(Toy)
def toy(**values):
    click.echo(repr(options.take(Toy, values)))


def by_line(*arguments):
    """What the command line makes of some words: a Toy, or the error that it ends with."""
    said = []

    @click.command(cls=options.Command, name="toy")
    @options.settings(Toy)
    def command(**values):
        said.append(options.take(Toy, values))

    command.main(list(arguments), standalone_mode=False)
    return said[0]


GOOD = [("rate", 1), ("rate", 0.25), ("steps", 7), ("way", "down"), ("marks", [4, 5]), ("loud", True), ("end", 9)]
BAD = [
    ("rate", float("nan")),
    ("rate", float("inf")),
    ("rate", 0),
    ("rate", "fast"),
    ("rate", 1.5),
    ("rate", True),
    ("steps", 1.5),
    ("steps", 0),
    ("steps", 10**18),
    ("steps", True),
    ("steps", "9" * 400),
    ("way", "left"),
    ("way", 5),
    ("marks", [1, -1]),
    ("marks", {"a": 1}),
    ("marks", [[1]]),
    ("loud", "perhaps"),
    ("loud", 1),
    ("end", 0),
]


@pytest.mark.parametrize("name,value", GOOD)
def test_a_value_means_the_same_wherever_it_comes_from(tmp_path, name, value):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump({name: value}))
    words = (
        [f"--{name}"] if value is True else [f"--{name}", ",".join(map(str, value)) if name == "marks" else str(value)]
    )
    expected = Toy(**{name: value})
    assert getattr(expected, name) == (tuple(value) if name == "marks" else value)
    assert by_line(*words) == expected
    assert by_line("--config", str(file)) == expected
    assert Toy.from_dict(expected.to_dict(), "here") == expected


@pytest.mark.parametrize("name,value", BAD)
def test_a_value_that_may_not_be_is_refused_wherever_it_comes_from(tmp_path, name, value):
    file = tmp_path / "toy.yaml"
    file.write_text(yaml.safe_dump({name: value}))
    with pytest.raises(InputError, match=f"--{name} should be"):
        Toy(**{name: value})
    with pytest.raises(InputError, match=rf"here: {name} should be"):
        Toy.from_dict({name: value}, "here")
    with pytest.raises(InputError, match=f"toy.yaml: {name}: "):
        by_line("--config", str(file))
    if not isinstance(value, bool):
        with pytest.raises((InputError, click.UsageError), match=f"{name}|unexpected|not one of"):
            by_line(f"--{name}", str(value))


def test_a_limit_that_goes_without_saying_is_said_to_who_passes_it():
    for rule, value, said in (
        (Setting(int, least=1), 10**10, "should be a whole number from 1 to 1,000,000,000, not 10000000000"),
        (Setting(int, least=1), 0, "should be a whole number, 1 or more, not 0"),
        (Setting(float, above=0), 1e10, "should be a number above 0 and up to 1e+09, not 10000000000.0"),
    ):
        with pytest.raises(ValueError) as told:
            rule.check(value)
        assert str(told.value) == said


@pytest.mark.parametrize(
    "text,reason",
    [
        ("stesp: 3", "no option 'stesp'"),
        ("- steps", "a mapping"),
        ("steps: [", "line [12]"),
        ("steps: &a 3\nrate: *a", "aliases"),
        ("steps: !!python/object:os.system 3", "tags"),
        ("steps: 2026-11-21", "should be"),
        ('way: "u\\0p"', "way: has a zero byte in 'u"),
        ("[" * 100_000, "deep"),
        ("x: " + "{a: " * 50_000, "deep"),
        ("steps: " + "9" * 5000, "toy.yaml"),
        ("a: &a [x]\n" + "".join(f"b{i}: [*a, *a]\n" for i in range(50)), "aliases"),
    ],
)
def test_a_file_of_settings_that_is_none_is_one_sentence(tmp_path, text, reason):
    file = tmp_path / "toy.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=reason) as error:
        by_line("--config", str(file))
    assert len(str(error.value)) < 400 and str(file) in str(error.value)


yaml_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
ALL_NAMES = [option_name(name)[2:] for bundle in BUNDLES for name, rule in settings_of(bundle).items() if rule.line]


@given(st.dictionaries(st.sampled_from(ALL_NAMES) | st.text(max_size=8), yaml_values, min_size=1, max_size=4))
def test_whatever_a_file_says_is_taken_or_refused_in_a_sentence(tmp_path_factory, values):
    file = tmp_path_factory.mktemp("any") / "any.yaml"
    file.write_text(yaml.safe_dump(values, allow_unicode=True), encoding="utf-8")
    pretrain = cli.get_command(click.Context(cli), "pretrain")
    try:
        chosen = pretrain.make_context("pretrain", ["--config", str(file)]).params
        PretrainSettings.of(
            **{name: chosen[name] for bundle in BUNDLES for name in settings_of(bundle) if name in chosen}
        )
    except InputError as error:
        assert 0 < len(str(error)) < 2000


def test_defaults_in_python_are_those_of_the_command():
    pretrain = cli.get_command(click.Context(cli), "pretrain")
    chosen = pretrain.make_context("pretrain", []).params
    on_line = {name: chosen[name] for bundle in BUNDLES for name, rule in settings_of(bundle).items() if rule.line}
    assert PretrainSettings.of(**on_line) == PretrainSettings()


def test_what_fields_call_published_is_what_the_published_recipes_say():
    published = {
        option_name(name)[2:]: rule.published
        for bundle in BUNDLES
        for name, rule in settings_of(bundle).items()
        if rule.published is not None
    }
    for name in ("published_dcid", "published_hdcid"):
        recipe = read_recipe(name)
        recipe["epochs"] = min(recipe["epochs"], published["epochs"])  # DCID has one more than H-DCID
        assert {key: recipe[key] for key in published if key in recipe} == {
            key: value for key, value in published.items() if key in recipe
        }
        assert published.keys() - recipe.keys() <= {"warmup"}  # which one layer has no use for


def test_a_default_stands_in_one_place():
    """Where `idle` is given a value: in its field, and nowhere else in the package."""
    places = []
    for path in Path(hdcid_cli.__path__[0]).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.AnnAssign) and getattr(node.target, "id", "") == "idle" and node.value is not None:
                places.append(path.name)
    assert places == ["settings.py"]


def test_every_setting_says_what_it_is():
    for bundle in BUNDLES:
        for item in fields(bundle):
            rule = settings_of(bundle).get(item.name)
            assert rule is None or (rule.help.endswith((".", "?")) and rule.wanted), item.name


def test_help_is_written_from_the_fields():
    shown = toy.get_help(click.Context(toy))
    assert "--rate NUMBER" in shown and "(published: 0.1)" in " ".join(shown.split()) and "--way [up|down]" in shown


def test_read_yaml_takes_dates_for_words(tmp_path):
    (tmp_path / "x.yaml").write_text("a: 2026-11-21\nb: 1.5\nc: [x, 2]\nd: {e: yes}\n")
    assert read_yaml(tmp_path / "x.yaml") == {"a": "2026-11-21", "b": 1.5, "c": ["x", 2], "d": {"e": True}}
