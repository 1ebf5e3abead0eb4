"""`hdcid info`: what a file is."""

import json
import shutil
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from hdcid_cli.commands.options import Command, checkpoints_option, features_option, json_option
from hdcid_cli.core.errors import BAD_INPUT, DONE, InputError
from hdcid_cli.core.modalities import ORDER
from hdcid_cli.core.paths import CHECKPOINTS, FEATURES
from hdcid_cli.core.progress import counted, printable

SCHEMA = "hdcid.info/1"


@click.command(cls=Command)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@features_option
@checkpoints_option
@click.option(
    "--quick", is_flag=True, help="Of features say what stands at the beginning of their files; do not read them all."
)
@json_option
def command(paths, features, checkpoints, quick, as_json):
    """What a feature file, a checkpoint or a folder of annotations is, and whether it is sound.

    PATH is a feature file, a folder of them (features/ by default), a
    checkpoint directory (the newest, for a folder of them), or annotations: a
    folder such as data/, or a table. Features are read and compared with their checksums; of
    annotations it is said which tasks are complete, which clips lack features
    and what to do next. The exit status is 2 if anything is damaged or incomplete.
    """
    status = DONE
    for path in paths or [features]:
        for record in describe(path, features, checkpoints, quick):
            show({"schema": SCHEMA, **record}, as_json)
            if not record["sound"]:
                status = BAD_INPUT
    return status


def describe(
    path: Path, features: Path = Path(FEATURES), checkpoints: Path = Path(CHECKPOINTS), quick: bool = False
) -> Iterator[dict]:
    """Records of what is at a path.

    Args:
        quick: feature files are opened, and not read: nothing is said of their numbers.
    """
    if not path.exists() and path.suffix not in (".h5", ".part"):
        remedy = ": make feature files with `hdcid extract`, or say what to describe" if path == features else ""
        raise InputError(f"There is no file or folder {path}{remedy}.")
    if (path / "latest").exists():
        path = path / "latest"
    if (path / "config.yaml").exists():
        yield _checkpoint(path)
    elif path.is_dir():
        found = [name for name in ORDER if any(path.glob(f"{name}*.h5*"))]
        if not found:
            yield from _annotations(path, features, checkpoints)
        for name in found:
            yield _features(path, name, quick)
    elif path.suffix == ".csv":
        yield from _annotations(path, features, checkpoints)
    else:
        _refuse_archive(path)
        yield _features(path, None, quick)


def _refuse_archive(path: Path) -> None:
    from hdcid_cli.codes.layout import holds_codes

    if holds_codes(path):
        raise InputError(
            f"{path} holds codes as arrays for `numpy.load`; hdcid-files(5) names them, and `hdcid info` describes the "
            "HDF5 file that `hdcid encode` writes without --format npz."
        )


def _annotations(path: Path, features: Path, checkpoints: Path) -> Iterator[dict]:
    from hdcid_cli.tasks.survey import survey_data

    return survey_data(path, features, checkpoints)


def _features(path: Path, modality: str | None, quick: bool) -> dict:
    from hdcid_cli.codes.layout import describe_codes
    from hdcid_cli.core.features import FeatureFile, feature_paths
    from hdcid_cli.core.progress import warn
    from hdcid_cli.core.survey import describe as said

    with FeatureFile(feature_paths(path, modality) if modality else [path]) as file:
        record = said(file) if quick else _read(file)
        for what, problem in (("damaged", "has changed since it was written"), ("not_finite", "holds NaN or infinity")):
            for clip in record.get(what, ()):
                warn(f"{file.name}: clip {clip!r} {problem}; extract it again.")
        sound = not (record.get("damaged") or record.get("not_finite"))
        return {
            "kind": "features",
            "path": ", ".join(map(str, file.paths)),
            "finished": path.suffix != ".part",
            "sound": sound,
            **record,
            **describe_codes(file.paths[0]),
        }


def _read(file) -> dict:
    from hdcid_cli.core.progress import progress
    from hdcid_cli.core.survey import survey

    with progress(total=len(file), description=file.name, unit="clip") as bar:

        def shown():
            for part in file.inspect():
                yield part
                bar.update(len(part.rows))

        return survey(file, shown())


def _checkpoint(path: Path) -> dict:
    from hdcid_cli.codes.checkpoint import MODEL, open_checkpoint
    from hdcid_cli.core.progress import warn

    checkpoint = open_checkpoint(path, device="cpu")
    parameters = sum(parameter.numel() for parameter in checkpoint.stored_model.parameters())
    for name in checkpoint.not_finite:
        warn(f"{checkpoint.path / MODEL}: {name} holds NaN or infinity; train the model again.")
    return {
        "kind": "checkpoint",
        "path": str(path),
        "sound": not checkpoint.not_finite,
        **checkpoint.describe(),
        "inputs": {name: list(shape) for name, shape in checkpoint.inputs.items()},
        "dim": checkpoint.settings.dim,
        "parameters": parameters,
        **_trained(checkpoint),
        "toc": checkpoint.toc.label if checkpoint.toc else "none",
        "not_finite": checkpoint.not_finite,
    }


def _trained(checkpoint) -> dict:
    """How far a run has come, of how far it is to go; nothing of a checkpoint that was not trained here."""
    done, wanted = checkpoint.epochs_done, checkpoint.description.epochs
    return {} if done is None or wanted is None else {"epoch": done, "epochs": wanted, "finished": done >= wanted}


def show(record: dict, as_json: bool) -> None:
    """One line of JSON to a pipe, a name and a value a line to a terminal."""
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(record, ensure_ascii=False))
        return
    if record["kind"] in ("annotations", "next"):
        click.echo(printable("\n".join(_sentences(record)), keep="\n"))
        return
    shown = {name: value for name, value in record.items() if name != "schema"}
    width = max(map(len, shown))
    for name, value in shown.items():
        click.echo(f"{name:{width}}  {printable(_plain(value, name))}")
    click.echo()


def _sentences(record: dict) -> Iterator[str]:
    """A task, or what to do next, for people: a line a finding, broken at words."""
    if record["kind"] == "next":
        yield from _lines("nothing of", [", ".join(record["absent"])] if record["absent"] else [])
        yield from _lines("", record["findings"])
        yield from _lines("next", record["next"])
        return
    splits = ", ".join(f"{record[name]} {name}" for name in ("train", "val", "test") if name in record)
    known = f": {counted(record['clips'], 'clip')} of {counted(record['classes'], 'class')}"
    known += f" ({splits})" * bool(splits)
    yield from _lines(record["task"], [f"{record['state']}{known if record['clips'] else ''}", *record["findings"]])


def _lines(name: str, texts: list[str]) -> Iterator[str]:
    """Texts in a column of their own, the name before the first."""
    width = max(40, shutil.get_terminal_size().columns)
    for number, text in enumerate(texts):
        first = f"{name if number == 0 else '':12} "
        yield textwrap.fill(
            text,
            width,
            initial_indent=first,
            subsequent_indent=" " * 15,
            break_on_hyphens=False,
            break_long_words=False,
        )


# What stands between the numbers of a list; names are divided by commas.
BETWEEN = {"shape": " x ", "codebook": " x ", "length": " to "}


def _plain(value, name: str = "") -> str:
    """A value for people: `10 x 7 x 7 x 68`, `3 to 5`, `yes`, `audio 128, video 7 x 7 x 68`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(each, 'shape')}" for key, each in value.items())
    if isinstance(value, list):
        return BETWEEN.get(name, ", ").join(map(_plain, value)) or "-"
    return "-" if value is None else str(value)
