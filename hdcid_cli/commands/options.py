"""Options that mean the same in every command, and `--config`."""

from pathlib import Path

import click

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import modalities, modality

HELP = {"help_option_names": ["-h", "--help"]}


class Command(click.Command):
    """A click command with `--config FILE.yaml` and `--debug`.

    Keys of the file are the command's own option names (`batch-size` or
    `batch_size`); options on the line override them, unknown keys are errors.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **{"context_settings": HELP, **kwargs})
        self.params.append(
            click.Option(
                ["--config"],
                type=click.Path(dir_okay=False, path_type=Path),
                is_eager=True,
                expose_value=False,
                callback=_load_config,
                help="YAML file with values for these options; options on the line override it.",
            )
        )
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_set_debug,
                help="Show the whole traceback of an error.",
            )
        )


class Group(Command, click.Group):
    """A group with `--config` and `--debug`, for a command that has subcommands of its own."""


def _set_debug(context, parameter, value):
    if value and isinstance(context.obj, dict):
        context.obj["debug"] = True


def _load_config(context, parameter, path):
    if path is None:
        return
    settings = read_config(path)
    known = {item.name: item for item in context.command.params if item.expose_value}
    values = {}
    for key, value in settings.items():
        name = str(key).replace("-", "_")
        if name not in known:
            raise InputError(
                f"{path}: `hdcid {context.command.name}` has no option {key!r}; it has {', '.join(sorted(known))}."
            )
        if isinstance(value, (list, tuple)) and not known[name].multiple and known[name].nargs == 1:
            value = ",".join(map(str, value))
        values[name] = value
    context.default_map = {**(context.default_map or {}), **values}


def read_config(path: Path) -> dict:
    """A flat YAML mapping; anything else is an InputError."""
    import yaml

    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"The configuration {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"The configuration {path} is not YAML: {str(error).splitlines()[0]}.") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError(f"The configuration {path} should be a mapping of option names to values.")
    return settings


class ModalityType(click.ParamType):
    """`v` or `video` -> `video`."""

    name = "v|a|t"

    def convert(self, value, param, ctx):
        return modality(value)


class ModalitiesType(click.ParamType):
    """`avt`, `a,v` -> ("audio", "video", ...)."""

    name = "avt"

    def convert(self, value, param, ctx):
        return value if isinstance(value, tuple) else modalities(value)


MODALITY = ModalityType()
MODALITIES = ModalitiesType()


def _folder(*names, envvar, default, help):
    return click.option(
        *names,
        envvar=envvar,
        default=default,
        show_default=True,
        type=click.Path(path_type=Path),
        help=f"{help}  [env: {envvar}]",
    )


features_option = _folder("--features", envvar="HDCID_FEATURES", default="features", help="Folder of feature files.")
checkpoints_option = _folder(
    "--checkpoints", envvar="HDCID_CHECKPOINTS", default="checkpoints", help="Folder of checkpoints."
)
data_option = _folder(
    "--data", envvar="HDCID_DATA", default="data", help="Folder of annotations; TASK/ in it belongs to a task."
)
leave_out_option = click.option(
    "--leave-out",
    metavar="COLUMN=VALUE",
    default=None,
    help="Keep groups of clips for the test, out of pretraining and probe alike: those with VALUE (or VALUE,VALUE) in "
    "a COLUMN of a table in DATA, such as speaker=anna.",
)
checkpoint_option = click.option(
    "--checkpoint",
    type=click.Path(path_type=Path),
    default=None,
    help="Checkpoint directory; `latest` in the folder of checkpoints if not given.",
)
toc_option = click.option(
    "--toc",
    default="stored",
    show_default=True,
    help="Channels to read: none, stored (by `hdcid toc`), 128, 224/196 (V->A/A->V) or paper.",
)
seed_option = click.option(
    "--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of everything random."
)
workers_option = click.option(
    "--workers",
    type=click.IntRange(min=0),
    default=None,
    help="Worker processes; by default as many as there are cores.",
)
device_option = click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
json_option = click.option("--json", "as_json", is_flag=True, help="Records as JSON Lines, on a terminal too.")
