"""Models by their name on the Hugging Face hub: from a local folder, from the cache, or downloaded into it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from hdcid_cli.core.errors import InputError


def load_pretrained(name: str, load: Callable, what: str, remedy: str):
    """Load a model of transformers, without its bars and without waiting for a hub that is out of reach.

    Args:
        name: a local folder, or a name on the hub.
        load: called as `load(source, local_files_only=...)`; what it returns is returned.
        what: "text encoder", for the error's sentence.
        remedy: what else the user can do, likewise.

    Raises:
        InputError: it is neither here nor to be had.
    """
    with _quietly():
        try:
            if Path(name).is_dir():
                return load(str(Path(name).resolve()), local_files_only=True)
            try:
                return load(name, local_files_only=True)
            except (OSError, ValueError):
                _reach_hub()
                return load(name, local_files_only=False)
        except (OSError, ValueError, KeyError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".") if str(error).strip() else type(error).__name__
            raise InputError(f"The {what} {name} cannot be loaded ({reason}): {remedy}.") from error


def _reach_hub() -> None:
    """Raise OSError if the hub does not answer; huggingface_hub itself would try for most of a minute."""
    if os.environ.get("HF_HUB_OFFLINE", "0").upper() in ("1", "TRUE", "YES", "ON"):
        raise OSError("it is not in the cache, and HF_HUB_OFFLINE is set")
    from huggingface_hub import constants

    try:
        urlopen(constants.ENDPOINT, timeout=10).close()
    except HTTPError:
        pass  # it answers
    except URLError as error:
        raise OSError(f"it is not in the cache, and {constants.ENDPOINT} does not answer") from error


@contextmanager
def _quietly() -> Iterator[None]:
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        logging.enable_progress_bar()
