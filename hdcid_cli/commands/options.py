"""Options that mean the same in every command, and `--config`."""

from dataclasses import fields
from pathlib import Path
from typing import TypeVar

import click
from click.core import ParameterSource

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.modalities import modalities, modality
from hdcid_cli.core.progress import did_you_mean, makes_no_difference
from hdcid_cli.core.settings import MOST_SEED, SHOWN, Setting, Settings, option_name, settings_of
from hdcid_cli.models.quantizers import READINGS

Bundle = TypeVar("Bundle", bound=Settings)

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
    """Give the command the values of a YAML file."""
    if path is not None:
        context.default_map = {**(context.default_map or {}), **_values(context, path)}


def _load_recipe(context, parameter, name):
    """Give the command the values of a recipe; what a --config file says counts more."""
    if name is not None:
        from hdcid_cli.training.recipes import find_recipe

        context.default_map = {**_values(context, find_recipe(name)), **(context.default_map or {})}


def _values(context: click.Context, path: Path) -> dict:
    """What a YAML file says for the options of a command, each value checked as if it had been typed."""
    from hdcid_cli.core.plain_yaml import read_yaml

    known = {name: option for option in context.command.params if option.expose_value for name in _names(option)}
    values = {}
    for key, value in read_yaml(path).items():
        option = known.get(str(key).replace("_", "-"))
        if option is None:
            names = sorted({_names(each)[0] for each in known.values()})
            raise InputError(
                f"{path}: `hdcid {context.info_name}` has no option {SHOWN.repr(key)}; it has {', '.join(names)}."
            )
        if value is None:
            continue
        try:
            values[option.name] = _typed(option, value)
            option.type_cast_value(context, values[option.name])
        except (click.BadParameter, InputError) as error:
            raise InputError(f"{path}: {key}: {getattr(error, 'message', error)}") from None
    return values


def _names(option: click.Parameter) -> list[str]:
    """What an option is called in a file, such as `batch-size`; an argument goes by its own name."""
    if isinstance(option, click.Argument):
        return [option.name or ""]
    return [name.removeprefix("--") for name in option.opts if name.startswith("--")]


def _typed(option: click.Parameter, value):
    """What would stand on the command line for a value of YAML."""
    if isinstance(option, click.Option) and option.is_flag:
        if not isinstance(value, bool):
            raise InputError(f"should be true or false, not {SHOWN.repr(value)}.")
        return value
    several = value if isinstance(value, list) else [value]
    for item in several:
        if isinstance(item, bool) or not isinstance(item, (str, int, float)):
            raise InputError(f"should be a word or a number, not {SHOWN.repr(item)}.")
        if isinstance(item, str) and "\0" in item:  # a command line cannot hold one, and no path may
            raise InputError(f"has a zero byte in {SHOWN.repr(item)}.")
    words = [str(item) for item in several]
    if option.multiple or option.nargs != 1:
        return words
    return ",".join(words)


class SettingType(click.ParamType):
    """Values of a setting, as `core/settings.py` describes it."""

    def __init__(self, rule: Setting):
        self.rule = rule
        self.name = rule.metavar or {int: "integer", float: "number", str: "text", Path: "path"}.get(rule.kind, "value")

    def convert(self, value, param, ctx):
        try:
            return self.rule.parse(value) if isinstance(value, str) else self.rule.check(value)
        except ValueError as error:
            name = max(param.opts, key=len) if param else "A value"
            raise InputError(f"{name} {error}.") from None


class PictureFile(click.Path):
    """Where to draw: a png, pdf or svg by the file's ending, a png without one."""

    def __init__(self) -> None:
        super().__init__(dir_okay=False, path_type=Path)

    def convert(self, value, param, ctx):
        path = super().convert(value, param, ctx)
        if Path(str(path)).suffix.lower() not in ("", ".png", ".pdf", ".svg"):
            self.fail(f"{value}: pictures can be png, pdf or svg.", param, ctx)
        return path


def whole(least: int | None = 1, most: int | None = None) -> SettingType:
    """Whole numbers, for an option that belongs to no bundle of settings."""
    return SettingType(Setting(int, least=least, most=most))


def number(least: float | None = None, above: float | None = None, most: float | None = None) -> SettingType:
    """Finite numbers likewise."""
    return SettingType(Setting(float, least=least, above=above, most=most))


def settings(*bundles: type[Settings]):
    """An option for every setting of the bundles, as their fields describe it."""
    made = [
        _option(name, rule, item.default)
        for bundle in bundles
        for name, rule in settings_of(bundle).items()
        for item in fields(bundle)
        if item.name == name and rule.line
    ]

    def decorate(function):
        for option in reversed(made):
            function = option(function)
        return function

    return decorate


def take(bundle: type[Bundle], values: dict) -> Bundle:
    """The bundle that the options of a command line say; they are taken out of `values`."""
    return bundle(**{name: values.pop(name) for name, rule in settings_of(bundle).items() if rule.line})


def _option(name: str, rule: Setting, default):
    """The click option of one setting."""
    text = rule.help
    if rule.published is not None:
        text = f"{text[:-1]} (published: {_shown(rule.published)})."
    flag = option_name(name, rule)
    if rule.kind is bool:
        both = default is not False
        names = f"{flag}/--no-{flag.removeprefix('--')}" if both else flag
        return click.option(
            names, name, is_flag=True, default=default, show_default=both and default is not None, help=text
        )
    kind = click.Choice(list(rule.choices)) if rule.choices and not rule.many else SettingType(rule)
    shown = _shown(default) if rule.many else default
    return click.option(flag, name, type=kind, default=shown, show_default=default is not None, help=text)


def _shown(value) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


# Where the value of an option stands that somebody asked for here: on the line, or in a file for --config.
ASKED = (ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP)


def given(*names: str) -> list[str]:
    """The options of this command that were given, as they are written: those of some values' names, or all."""
    context = click.get_current_context()
    return [
        f"--{_names(option)[0]}"
        for option in context.command.params
        if option.expose_value
        and (not names or option.name in names)
        and context.get_parameter_source(option.name or "") in ASKED
    ]


def by_default(name: str) -> bool:
    """Whether nobody has said the value of that name, here or in the environment."""
    return click.get_current_context().get_parameter_source(name) is ParameterSource.DEFAULT


def tell_idle(why: str, *names: str) -> None:
    """Say which options of this command, by the names of their values, were given and make no difference."""
    for option in given(*names):
        makes_no_difference(option, why)


class NameType(click.Choice):
    """One of some names; of a wrong one it is said which of them is near."""

    def convert(self, value, param, ctx):
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter as error:
            self.fail(error.message + did_you_mean(str(value), map(str, self.choices)), param, ctx)


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


def toc_option(choices: str):
    """`--toc`, with what it can be besides none and stored."""
    text = f"Channels to read: none, stored (by `hdcid toc`), {choices}."
    return click.option("--toc", default="stored", show_default=True, help=text)


read_option = click.option(
    "--read",
    type=click.Choice(list(READINGS)),
    default=None,
    help=f"What is read of a code: {'; '.join(f'{name}, {what}' for name, what in READINGS.items())}. By default row, "
    "and with `cmg --protocol published` what a converted checkpoint's makers read.",
)
recipe_option = click.option(
    "--recipe",
    metavar="NAME",
    is_eager=True,
    expose_value=False,
    callback=_load_recipe,
    help="Settings by name (`hdcid recipe ls`), or a YAML file of them; other options override it.",
)
seed_option = click.option(
    "--seed", type=whole(0, MOST_SEED), default=0, show_default=True, help="Seed of everything random."
)
workers_option = click.option(
    "--workers",
    type=whole(0),
    default=None,
    help="Worker processes; by default as many as there are cores.",
)
device_option = click.option(
    "--device", default="auto", show_default=True, help="auto (a CUDA GPU if there is one), cpu, cuda, cuda:N or mps."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Records as JSON Lines, on a terminal too.")
