"""`hdcid info`: what a file is."""

import json
import sys
from pathlib import Path

import click

from hdcid_cli.commands.options import Command, features_option, json_option
from hdcid_cli.core.errors import BAD_INPUT, DONE, InputError
from hdcid_cli.core.modalities import ORDER

SCHEMA = "hdcid.info/1"


@click.command(cls=Command)
@click.argument("paths", nargs=-1, metavar="[PATH]...", type=click.Path(path_type=Path))
@features_option
@json_option
def command(paths, features, as_json):
    """What a feature file or checkpoint is, and whether it is sound.

    PATH is a feature file, a folder of them (features/ by default) or a
    checkpoint directory (the newest, for a folder of them). All of it is read and compared with its checksums.
    The exit status is 2 if anything is damaged.
    """
    status = DONE
    for path in paths or [features]:
        for record in describe(path):
            show({"schema": SCHEMA, **record}, as_json)
            if not record["sound"]:
                status = BAD_INPUT
    return status


def describe(path: Path):
    """Records of what is at a path."""
    if (path / "latest").exists():
        path = path / "latest"
    if (path / "config.yaml").exists():
        yield _checkpoint(path)
    elif path.is_dir():
        found = [name for name in ORDER if any(path.glob(f"{name}*.h5*"))]
        if not found:
            raise InputError(
                f"{path} holds neither feature files nor a checkpoint: make them with `hdcid extract` and "
                "`hdcid pretrain`."
            )
        for name in found:
            yield _features(path, name)
    else:
        yield _features(path, None)


def _features(path: Path, modality: str | None) -> dict:
    from hdcid_cli.core.features import FeatureFile, feature_paths
    from hdcid_cli.core.progress import progress, warn
    from hdcid_cli.core.survey import survey

    with FeatureFile(feature_paths(path, modality) if modality else [path]) as file:
        record = survey(file, progress(file.inspect(), total=len(file), description=file.name, unit="clip"))
        for what, problem in (("damaged", "has changed since it was written"), ("not_finite", "holds NaN or infinity")):
            for clip in record[what]:
                warn(f"{file.name}: clip {clip!r} {problem}; extract it again.")
        sound = not (record["damaged"] or record["not_finite"])
        return {
            "kind": "features",
            "path": ", ".join(map(str, file.paths)),
            "finished": path.suffix != ".part",
            "sound": sound,
            **record,
        }


def _checkpoint(path: Path) -> dict:
    from hdcid_cli.codes.checkpoint import open_checkpoint

    checkpoint = open_checkpoint(path, device="cpu")
    parameters = sum(
        parameter.numel() for parameter in checkpoint.model.parameters()
    )  # loads it: a damaged file ends here
    model = checkpoint.config["model"]
    return {
        "kind": "checkpoint",
        "path": str(path),
        "sound": True,
        **checkpoint.describe(),
        "inputs": model["inputs"],
        "dim": model["dim"],
        "parameters": parameters,
        "toc": (checkpoint.toc or {}).get("label", "none"),
    }


def show(record: dict, as_json: bool) -> None:
    """One line of JSON to a pipe, a name and a value a line to a terminal."""
    if as_json or not sys.stdout.isatty():
        click.echo(json.dumps(record, ensure_ascii=False))
        return
    width = max(map(len, record))
    for name, value in record.items():
        click.echo(f"{name:{width}}  {_plain(value)}")
    click.echo()


def _plain(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return " ".join(map(_plain, value)) or "-"
    return str(value)
