"""What README, CONTRIBUTING and the manual show works: command lines are understood, and those marked `run` are run."""

import contextlib
import csv
import io
import json
import os
import re
import shlex
import sys
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import click
import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from described import undocumented
from own_videos import write_videos
from worlds import write_features

from hdcid_cli.backbones import BACKBONES
from hdcid_cli.codes.checkpoint import CHECKPOINT
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.features import FeatureWriter
from hdcid_cli.main import COMMANDS, cli
from hdcid_cli.models.quantizers import QUANTIZERS
from hdcid_cli.report import glossary
from hdcid_cli.tasks.cmg.openset import MEASURES
from hdcid_cli.tasks.cmg.parsing import parsing_scores
from hdcid_cli.tasks.cmg.scores import METRICS
from hdcid_cli.tasks.cmg.tasks import TASKS
from hdcid_cli.tasks.ranks import Owned, Vectors, caption_scores, count_ranks
from hdcid_cli.tasks.segmentation.evaluation import ClipScores
from hdcid_cli.tasks.segmentation.training import SEGMENTER
from hdcid_cli.training.alignments import ALIGNMENTS
from hdcid_cli.training.recipes import read_recipe, recipe_names

TOP = Path(__file__).parents[1]
sys.path.insert(0, str(TOP / "man"))
from roff import code_blocks, sections  # noqa: E402

PARTS = {path.parent.name for path in (TOP / "hdcid_cli").glob("*/__init__.py")}
DOCUMENTS = [TOP / "README.md", TOP / "CONTRIBUTING.md", *sorted((TOP / "man").glob("*.md"))]

# What is added to command lines of the documents so that a test can wait for them.
QUICK = {
    "synth": "--clips 24 --classes 3 --workers 2",
    "extract": "--workers 2",
    "pretrain": "--dim 32 --codebook 40 --batch-size 8 --epochs 2",
    "cmg": "--epochs 3",
}
WEIGHTLESS = {"video": "hog", "audio": "logmel", "text": "hash"}


def blocks(path: Path) -> Iterator[tuple[str, str]]:
    """(language and what else the fence says, code) of a document's blocks."""
    return code_blocks(path.read_text(encoding="utf-8"))


def pipelines(code: str) -> Iterator[list[list[str]]]:
    """The pipelines of a block of shell: [[word, ...], ...] each; comments and continued lines are understood."""
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|&;<>")
        words.whitespace_split = True
        pipeline: list[list[str]] = [[]]
        for word in words:
            if word in ("&&", ";"):
                yield pipeline
                pipeline = [[]]
            elif word == "|":
                pipeline.append([])
            else:
                pipeline[-1].append(word)
        if pipeline[0]:
            yield pipeline


def hdcid_calls(code: str) -> Iterator[list[str]]:
    """The arguments of every call of `hdcid` in a block of shell, however it is started."""
    for pipeline in pipelines(code):
        for call in pipeline:
            words = call[: call.index(">")] if ">" in call else call[: call.index(">>")] if ">>" in call else call
            if words[:1] == ["torchrun"] and "hdcid_cli" in words:
                yield words[words.index("hdcid_cli") + 1 :]
            elif words[:1] == ["hdcid"]:
                yield words[1:]


def understood(arguments: list[str]) -> None:
    """Parse a command line as the program does, without running anything; click.UsageError if it is wrong."""
    context, command = click.Context(cli, info_name="hdcid", obj={}), cli
    while arguments:
        name, *arguments = arguments
        command = command.get_command(context, name)
        if command is None:
            raise click.UsageError(f"there is no command {name!r}")
        context = command.make_context(name, arguments, parent=context)
        arguments = [*context._protected_args, *context.args] if isinstance(command, click.Group) else []


CALLS = [(path.name, call) for path in DOCUMENTS for info, code in blocks(path) if info.split()[0] == "sh"
         for call in hdcid_calls(code)]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "arguments"), CALLS, ids=lambda value: value if isinstance(value, str) else " ".join(value)
)
def test_command_lines_are_understood(document, arguments, monkeypatch):
    if arguments[:1] in (["COMMAND"], ["--help"], ["--version"]) or "--help" in arguments:
        return
    monkeypatch.chdir(TOP)
    understood(arguments)


def test_a_wrong_command_line_is_seen():
    for wrong in ("cmg ave --train v", "pretrain --layer 2", "frobnicate", "convert features x.h5", "toc --keep many"):
        with pytest.raises((click.UsageError, InputError)):
            understood(wrong.split())


def test_every_command_has_examples_and_files():
    parts = sections((TOP / "man" / "commands.md").read_text(encoding="utf-8"))
    assert list(parts) == ["hdcid", *COMMANDS], "write its examples and files in man/commands.md"
    for name, text in parts.items():
        assert "### Examples" in text and "### Files" in text, name
        assert any(call[0] == name for _, code in code_blocks(text) for call in hdcid_calls(code)) or name == "hdcid"


def options_of(command: click.Command) -> set[str]:
    """All options of a command and of its subcommands."""
    found = {name for option in command.params if isinstance(option, click.Option)
             for name in (*option.opts, *option.secondary_opts)}  # fmt: skip
    inner = command.commands.values() if isinstance(command, click.Group) and command is not cli else ()
    return found.union(*(options_of(each) for each in inner))


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_option_that_is_named_exists(path):
    context = click.Context(cli)
    known = {"--help", "-h", "--version"}.union(*(options_of(cli.get_command(context, name)) for name in COMMANDS))
    # of torchrun, ruff and examples/study.py
    foreign = {"--nproc-per-node", "--nnodes", "--rdzv-backend", "--rdzv-endpoint", "--max-restarts", "--check"}
    foreign |= {"--final", "--mismatched"}
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)) - foreign
    assert not named - known


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_files_of_the_project_that_are_named_exist(path):
    text = path.read_text(encoding="utf-8")
    named = set(re.findall(r"(?<![\w/])(?:examples|tests|man|hdcid_cli)/[\w./-]*[\w/]", text))
    assert not [name for name in named if not re.search("[A-Z]", name) and not (TOP / name).exists()]
    inside = set(re.findall(rf"`((?:{'|'.join(PARTS)})/(?:[\w/]*\.py|[\w/]+/))`", text))
    assert not [name for name in inside if not (TOP / "hdcid_cli" / name).exists()]


def page(name: str) -> dict[str, str]:
    """The sections of a page of the manual."""
    return sections((TOP / "man" / name).read_text(encoding="utf-8"))


def terms(text: str) -> set[str]:
    """What a list defines: the code before the colon of `- `a`, `b`: meaning`."""
    found = re.findall(r"^- ((?:`[^`]+`(?:, | or )?)+):", text, re.MULTILINE)
    return {name for item in found for name in re.findall("`([^`]+)`", item)}


def test_every_option_is_on_its_commands_page():
    for name in COMMANDS:
        shown = (TOP / "man" / f"hdcid-{name}.1").read_text(encoding="utf-8").replace("\\-", "-")
        named = set(re.findall(r"(?<![\w-])--?[A-Za-z][\w-]*", shown))
        assert not options_of(cli.get_command(click.Context(cli), name)) - named, name


def test_the_readme_is_two_screens_beside_its_tables_and_its_tree():
    lines = re.sub("```text\n.*?```\n", "", (TOP / "README.md").read_text(encoding="utf-8"), flags=re.S).splitlines()
    assert len([line for line in lines if not line.startswith("|")]) <= 80


def test_the_manual_explains_every_method_and_no_other():
    methods = page("hdcid-methods.7.md")
    said = "in hdcid-methods.7.md, in the registry's order"
    assert re.findall(r"^### (\S+)$", methods["ALIGNMENTS"], re.MULTILINE) == list(ALIGNMENTS), f"### NAME {said}"
    assert terms(methods["QUANTIZERS"]) == set(QUANTIZERS), f"- `NAME`: {said}"
    assert re.findall(r"^\| `(\w+)` \|", methods["TASKS"], re.MULTILINE) == list(TASKS), f"| `NAME` | {said}"
    assert terms(methods["FEATURES"]) == {name for names in BACKBONES.values() for name in names}, f"- `NAME`: {said}"


def test_the_manual_explains_every_metric_and_no_other():
    numbers = np.random.default_rng(0).normal(size=(8, 5, 4))
    said, vectors = numbers > 0, Vectors(numbers[:, 0], numbers[:, 1])
    measured = {name for metrics in METRICS.values() for name in metrics}
    measured |= parsing_scores((said, said), (said, said)).keys() | set(MEASURES)
    [counts] = count_ranks([vectors], [(1.0,)], Owned.one_each(np.arange(8), 8))
    measured |= {f"summary {score.name}" for score, _ in caption_scores(counts)}
    measured |= {score.name for score in ClipScores([0.5], [0.5], [np.ones(256)]).scores()}
    measured |= {f"layer 1 {name}" for name in ("purity", "nmi", "ami", "used", "shared")}
    named = set(re.findall("`([a-z@_0-9 ]+)`", page("hdcid-methods.7.md")["METRICS"]))
    assert measured - named == {"summary r@5", "summary r@10", "summary r@50"}  # "and so on"
    assert named - measured == {"codes r@5", "both r@10"}


def test_the_glossary_of_report_is_the_manuals():
    items = re.findall(r"^- (.*(?:\n  .*)*)", page("hdcid-methods.7.md")["METRICS"], re.MULTILINE)
    assert [" ".join(item.split()) for item in items] == list(glossary.METRICS)
    named = {name for entry in glossary.METRICS for name in re.findall("`([^`]+)`", entry)}
    headlines = {name for each in glossary.HEADLINES.values() for names in each for name in names}
    assert headlines <= named | {"both r@1", "codes r@1"}
    rows = re.findall(r"^\| `(\w+)` \|.*\| ([^|]*) \|$", page("hdcid-methods.7.md")["TASKS"], re.MULTILINE)
    assert len(rows) == len(TASKS)
    for task, shown in rows:
        measured = [each.metric for each in TASKS[task]]
        assert set(re.findall("`([^`]+)`", shown)) == glossary.headline(task, measured), task


def test_the_table_of_defaults_is_true():
    """What differs from the published code, and how: the options' defaults and the published recipe say the same."""
    command = cli.get_command(click.Context(cli), "pretrain")
    published = read_recipe("published_dcid")
    rows = re.findall(
        r"^\| `--(\S+)(?: (\S+))?` \| `--(\S+)(?: (\S+))?` \|", page("hdcid-methods.7.md")["DEFAULTS"], re.M
    )
    assert len(rows) == 13
    defaults = command.make_context("pretrain", []).params
    for name, ours, other, theirs in rows:
        assert str(defaults[name.replace("-", "_")]) == (ours or "True"), name
        assert str(published[name]) == (theirs or "False") and other.removeprefix("no-") == name, name


def test_the_manual_names_every_recipe_and_script():
    text = (TOP / "man" / "hdcid-reproduce.7.md").read_text(encoding="utf-8")
    recipes = set(recipe_names())
    (listed,) = re.findall(r"^All recipes \(`hdcid recipe ls`\): (.*?)\.$", text, re.M | re.S)
    assert set(re.findall(r"`(\w+)`", listed)) == recipes
    assert set(re.findall(r"`((?:figure|published|table)[\d]*_\w+)`", text)) <= recipes
    scripts = {path.name for path in (TOP / "examples").glob("*[0-9].sh")}
    assert set(re.findall(r"`examples/(\w+\.sh)`", text)) == scripts


def test_the_manual_names_every_file_of_a_run():
    for section, kind in (("CHECKPOINT DIRECTORIES", CHECKPOINT), ("SEGMENTERS", SEGMENTER)):
        text = page("hdcid-files.5.md")[section]
        names = {re.sub("/.*", "/", name) for name in ("config.yaml", *kind.saved, *kind.noted, *kind.derived)}
        named = set(re.findall(r"`([\w.-]+\.(?:yaml|safetensors|pt|jsonl|txt|json)|\w+/)`", text))
        assert {name for name in named if not any(fnmatch(name, known) for known in names)} == set(), section
        assert not [name for name in names if not any(fnmatch(word, name) for word in named)], section
        assert f"format: {kind.format}" in text and f"version: {kind.version}" in text


def test_the_manual_describes_feature_files_as_they_are(tmp_path):
    attributes = {"modality": "audio", "backbone": "own", "weights": "none", "segment_seconds": 1.0, "revision": "1a2b"}
    with FeatureWriter(tmp_path / "audio.h5", ["a"], (2, 3), attributes) as writer:
        writer.write("a", np.ones((2, 3)), 2)
        writer.finish()
    with h5py.File(tmp_path / "audio.h5") as file:
        found = {*file, *file.attrs}
        version = file.attrs["version"]
    text = page("hdcid-files.5.md")["FEATURE FILES"]
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == found
    assert f"| `version` | attribute | {version} |" in text


def test_the_tree_of_the_package_is_its_tree():
    text = (TOP / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^  (\w+)/  ", text, re.MULTILINE)) == PARTS


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The folder in which the documents' lines are run, one after the other."""
    return tmp_path_factory.mktemp("world")


def run_shell(code: str, folder: Path) -> None:
    """Run a block's pipelines of `hdcid` in this process: pipes, > and >> as in a shell."""
    for pipeline in pipelines(code):
        flowing = ""
        for call in pipeline:
            mode = next((word for word in call if word in (">", ">>")), None)
            words = call[: call.index(mode)] if mode else call
            assert words[0] == "hdcid", f"blocks that are run hold calls of hdcid alone, not {words[0]}"
            arguments = [*words[1:], *shlex.split(QUICK.get(words[1], ""))]
            if words[1] == "extract" and "--backbone" not in words:
                arguments += ["--backbone", WEIGHTLESS[words[words.index("--modality") + 1]]]
            result = CliRunner().invoke(cli, arguments, input=flowing, obj={"debug": True})
            if result.exception and not isinstance(result.exception, SystemExit):
                raise result.exception
            assert result.exit_code == 0, f"hdcid {shlex.join(arguments)}: {result.output}"
            flowing = result.stdout
            assert not undocumented(flowing), shlex.join(call)
            if mode:
                with open(folder / call[call.index(mode) + 1], "w" if mode == ">" else "a", encoding="utf-8") as file:
                    file.write(flowing)


def run_python(code: str) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as said:
        exec(compile(code, "document", "exec"), {"__name__": "document"})
    assert said.getvalue().strip()


@pytest.mark.slow
def test_what_is_marked_run_runs(world, monkeypatch):
    monkeypatch.chdir(world)
    ran = {"sh": 0, "python": 0}
    first = TOP / "man" / "commands.md"  # begins with `hdcid synth .`
    for path in (first, *(other for other in DOCUMENTS if other != first)):
        for info, code in blocks(path):
            language, *more = info.split()
            if more == ["run"]:
                (run_python(code) if language == "python" else run_shell(code, world))
                ran[language] += 1
    assert ran["sh"] > 8 and ran["python"] > 3
    assert os.path.exists("results.html")


def lines_for_own_videos() -> str:
    """What README shows to be run in a folder that holds `videos/`."""
    [code] = [code for _, code in blocks(TOP / "README.md") if "convert annotations videos/" in code]
    return code


def test_the_readmes_lines_for_own_videos_lead_to_a_table(tmp_path, monkeypatch, capsys):
    """From a folder a class, under own names: tested clips are never learned from, and the record says so."""
    monkeypatch.chdir(tmp_path)
    write_videos(tmp_path / "videos")
    *code, measured = lines_for_own_videos().strip().splitlines()
    run_shell("\n".join(code), tmp_path)
    run_shell(measured.replace("| hdcid report", "> results.jsonl") + "\nhdcid report results.jsonl > table", tmp_path)
    records = [json.loads(line) for line in Path("results.jsonl").read_text().splitlines()]
    tested = {row["id"] for row in csv.DictReader(open("data/classify.csv")) if row["split"] == "test"}
    learned = set(Path("checkpoints/latest/clips.txt").read_text().splitlines())
    assert {record["protocol"] for record in records} == {"heldout"} and records[0]["n"] == len(tested) > 3
    assert records[0]["toc"] != "none" and len(learned) > 12 and not learned & tested
    assert "heldout" in Path("table").read_text()


LAYOUTS = {  # what README and hdcid-files(5) say `cmg classify` finds, and the files that are there
    "data/classify.csv": ["data/classify.csv"],
    "beside other tables": ["data/classify.csv", "data/split.csv", "data/localise.csv", "data/captions.csv"],
    "a folder a task": ["data/classify/classify.csv", "data/split.csv"],
    "the only one in its folder": ["data/classify/mine.csv", "data/split.csv"],
    "the only one": ["data/mine.csv"],
}


@pytest.mark.parametrize("files", LAYOUTS.values(), ids=LAYOUTS)
def test_every_layout_of_own_tables_is_found_and_held_out(files, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    _, names = write_features(tmp_path / "features", clips=24)
    splits = {name: ("train", "train", "val", "test")[number % 4] for number, name in enumerate(names)}
    contents = {
        "split.csv": "id,split\n" + "".join(f"{name},{split}\n" for name, split in splits.items()),
        "captions.csv": "video_id,caption\nclip0000,a word\n",
        "localise.csv": "id,split,label,onset,offset\nclip0003,test,x,0,2\n",
    }
    labels = "".join(f"{name},{split},{'xy'[number // 4 % 2]}\n" for number, (name, split) in enumerate(splits.items()))
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(contents.get(Path(file).name, "id,split,label\n" + labels))
    run_shell("hdcid pretrain\nhdcid cmg classify --train v --test a > results.jsonl", tmp_path)
    record = json.loads(Path("results.jsonl").read_text().splitlines()[0])
    assert (record["n"], record["n_pretrained"], record["protocol"], record["pretrain_clips"]) == (6, 0, "heldout", 12)
