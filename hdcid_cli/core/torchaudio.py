"""torchaudio is imported only by what needs it: it wants the very torch that it was built with."""

from typing import Any

import torch

from hdcid_cli.core.errors import InputError


def check_torchaudio(what: str) -> Any:
    """The module; InputError says who needs it and which versions go together."""
    try:
        import torchaudio
    except (ImportError, OSError, RuntimeError) as error:  # OSError: a library of its own is missing
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"{what} needs torchaudio, which cannot be imported beside torch {torch.__version__} ({reason}): install "
            "torch>=2.6,<2.15 and torchaudio>=2.6 together."
        ) from error
    return torchaudio
