"""Recipes: named settings of `hdcid pretrain`, one YAML file each, beside this one."""

import re
from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.plain_yaml import read_yaml
from hdcid_cli.core.settings import SHOWN, option_name, settings_of
from hdcid_cli.training.settings import PretrainSettings

FOLDER = Path(__file__).parent


def recipe_names() -> list[str]:
    """All names, in order."""
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe by its name, or a YAML file of one's own by its path."""
    if name in recipe_names():
        return FOLDER / f"{name}.yaml"
    if name.endswith((".yaml", ".yml")) or "/" in name:
        return Path(name)
    raise InputError(f"There is no recipe {name!r}: `hdcid recipe ls` lists them; a file of your own ends in .yaml.")


def read_recipe(name: str) -> dict:
    """The options that a recipe says, by their names."""
    return read_yaml(find_recipe(name))


def recipe_settings(name: str) -> dict:
    """What a recipe says for the fields of `PretrainSettings` (and `modalities`), by their names, checked."""
    known = {
        option_name(field, rule).removeprefix("--"): (field, rule)
        for bundle in PretrainSettings.bundles().values()
        for field, rule in settings_of(bundle).items()
    }
    found = {}
    for option, value in read_recipe(name).items():
        key = str(option).replace("_", "-")
        if key == "modalities":
            found[key] = str(value)
            continue
        if key not in known:
            raise InputError(f"{find_recipe(name)}: there is no setting {SHOWN.repr(option)} of pretraining.")
        field, rule = known[key]
        try:
            found[field] = rule.parse(value) if isinstance(value, str) else rule.check(value)
        except ValueError as error:
            raise InputError(f"{find_recipe(name)}: {option} {error}.") from None
    return found


def summary(name: str) -> str:
    """The first sentence of what a recipe's own comment says."""
    comment = []
    for line in find_recipe(name).read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        comment.append(line.lstrip("# "))
    first, *_ = re.split(r"\. (?=[A-Z])", " ".join(comment))  # not behind "et al." or "eq."
    return first.removesuffix(".") + "."
