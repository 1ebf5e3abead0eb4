"""Models of transformers: from a folder, or by their name on the Hugging Face hub, `NAME` or `NAME@REVISION`.

A model is data here. Its weights are taken from safetensors alone unless the caller allows pickles, and code that
comes with a model is neither downloaded nor run.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from huggingface_hub import constants, errors, snapshot_download, try_to_load_from_cache
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
from transformers.utils import logging

from hdcid_cli.core.errors import HdcidError, InputError
from hdcid_cli.core.files import read_text

SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# Layers are made one by one before weights are looked at, and the deepest models have a hundred.
MOST_LAYERS = 1000
_LAYERS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers", "encoder_layers", "decoder_layers", "depths")
# What is fetched of a model: settings, vocabularies and weights; no code, no weights of other programs.
_PATTERNS = ["*.json", "*.txt", "*.model", "model*.safetensors"]
_PICKLE_PATTERNS = ["pytorch_model*.bin"]


@dataclass(frozen=True)
class Snapshot:
    """A model's files.

    Attributes:
        name: as the user gave it, without the revision.
        folder: where they are.
        revision: the commit that they are of; empty for a folder of the user's own.
    """

    name: str
    folder: Path
    revision: str = ""


def find_model(name: str, what: str, remedy: str, pickles: bool = False) -> Snapshot:
    """A model's files: a local folder, or those of the hub, from its cache or downloaded into it.

    Args:
        name: a folder, `NAME` or `NAME@REVISION` (branch, tag or commit).
        what: "text encoder", for the error's sentence.
        remedy: what else the user can do, likewise.
        pickles: take `pytorch_model.bin` where there is no safetensors.

    Raises:
        InputError: it is neither here nor to be had, or its weights are pickled and may not be.
    """
    try:
        if Path(name).is_dir():
            snapshot = Snapshot(name, Path(name).resolve())
        else:
            plain, _, revision = name.partition("@")
            folder = _from_hub(plain, revision or "main", pickles)
            snapshot = Snapshot(plain, folder, folder.name)
        _check_weights(snapshot.folder, pickles)
    except (OSError, ValueError, RuntimeError) as error:
        raise _cannot(what, name, _reason(error), remedy) from error
    return snapshot


def load_pretrained(name: str | Snapshot, load: Callable, what: str, remedy: str, pickles: bool = False) -> Any:
    """Load a model of transformers, without its bars, questions and guesses.

    Args:
        name: as `find_model` takes it, or what it gave.
        load: called as `load(folder, local_files_only=True, trust_remote_code=False)`; its result is returned.
        what, remedy, pickles: as for `find_model`.

    Raises:
        InputError: it is neither here nor to be had, it is damaged, or it cannot be had without running its code.
    """
    snapshot = name if isinstance(name, Snapshot) else find_model(name, what, remedy, pickles)
    with _quietly():
        try:
            return load(str(snapshot.folder), local_files_only=True, trust_remote_code=False)
        except HdcidError:
            raise
        except Exception as error:  # transformers has many kinds for settings that are none
            raise _cannot(what, snapshot.name, _reason(error), remedy) from error


def _from_hub(name: str, revision: str, pickles: bool) -> Path:
    """The folder of a snapshot, from the cache if all of it is there; OSError or ValueError says why not."""
    patterns = _PATTERNS + (_PICKLE_PATTERNS if pickles else [])
    try:
        folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns, local_files_only=True))
        if _kind_of_weights(folder):
            return folder
    except errors.HFValidationError as error:
        raise OSError("it is neither a folder here nor a name on the hub") from error
    except errors.LocalEntryNotFoundError:
        pass
    try:
        _reach_hub()
    except OSError:
        config = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(config, str) and _kind_of_weights(Path(config).parent):
            return Path(config).parent  # another program put it there, perhaps not with all its files
        raise
    try:
        with _bars_on_terminals():
            return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except errors.GatedRepoError as error:
        raise OSError(
            f"its authors ask for their conditions to be accepted: do so at https://huggingface.co/{name}, and log "
            "in with `hf auth login`"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise OSError(f"it has no revision {revision!r}") from error
    except errors.RepositoryNotFoundError as error:
        raise OSError("the hub has no such model, or it is private: log in with `hf auth login`") from error


def _kind_of_weights(folder: Path) -> str:
    """The name of the file that weights are read from, "" if none is there or a part of them is missing."""
    for name in SAFETENSORS + PICKLES:
        if (folder / name).is_file():
            parts = {name} if not name.endswith(".json") else _parts(folder / name)
            return name if all((folder / part).is_file() for part in parts) else ""
    return ""


def _parts(index: Path) -> set[str]:
    """The files that an index names; ValueError if it is none, or names others than such as lie beside it."""
    found = json.loads(read_text(index))
    parts = found.get("weight_map") if isinstance(found, dict) else None
    ending = Path(index.stem.removesuffix(".index")).suffix
    names = set(map(str, parts.values())) if isinstance(parts, dict) else {""}
    if not all(name == Path(name).name and name.endswith(ending) for name in names):
        raise ValueError(f"{index.name} is no list of weights that lie beside it")
    return names


def _check_weights(folder: Path, pickles: bool) -> None:
    if not (folder / "config.json").is_file():
        raise OSError("there is no config.json, so it is no model that transformers saved")
    if (layers := _most_layers(json.loads(read_text(folder / "config.json")))) > MOST_LAYERS:
        raise ValueError(f"its config.json asks for {layers:,} layers")
    kind = _kind_of_weights(folder)
    if kind not in (SAFETENSORS + PICKLES if pickles else SAFETENSORS):
        raise OSError(
            "its weights are incomplete"
            if any((folder / name).exists() for name in SAFETENSORS)
            else "it has no weights"
            if pickles
            else "it has no weights in safetensors"
        )


def _most_layers(config: Any) -> int:
    """The greatest number of layers that settings, or settings within them, ask for."""
    if not isinstance(config, dict):
        return 0
    found = [_most_layers(value) for value in config.values()]
    for value in map(config.get, _LAYERS):
        found += [each for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)]
    return max(found, default=0)


@contextmanager
def _bars_on_terminals() -> Iterator[None]:
    silence = not (are_progress_bars_disabled() or sys.stderr.isatty())
    if silence:
        disable_progress_bars()
    try:
        yield
    finally:
        if silence:
            enable_progress_bars()


def _reach_hub() -> None:
    """Raise OSError if the hub does not answer; huggingface_hub itself would try for most of a minute."""
    if constants.HF_HUB_OFFLINE or os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        raise OSError("it is not in the cache, and HF_HUB_OFFLINE is set")
    try:
        urlopen(constants.ENDPOINT, timeout=10).close()
    except HTTPError:
        pass  # it answers
    except URLError as error:
        raise OSError(f"it is not in the cache, and {constants.ENDPOINT} does not answer") from error


def _cannot(what: str, name: str, reason: str, remedy: str) -> InputError:
    return InputError(f"The {what} {name} cannot be loaded ({reason}): {remedy}.")


def _reason(error: BaseException) -> str:
    said = str(error).strip()
    if "trust_remote_code" in said:
        return "it would have to run code of its own, which is never done"
    return said.splitlines()[0].rstrip(".") if said else type(error).__name__


@contextmanager
def _quietly() -> Iterator[None]:
    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
