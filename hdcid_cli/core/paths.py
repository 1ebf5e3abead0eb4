"""Where a command looks when it is not told: the working directory's layout."""

import os
from pathlib import Path

FEATURES = "features"
CHECKPOINTS = "checkpoints"
DATA = "data"


def features_dir() -> Path:
    """`features/`, or what HDCID_FEATURES says."""
    return Path(os.environ.get("HDCID_FEATURES") or FEATURES)


def checkpoints_dir() -> Path:
    """`checkpoints/`, or what HDCID_CHECKPOINTS says."""
    return Path(os.environ.get("HDCID_CHECKPOINTS") or CHECKPOINTS)


def data_dir() -> Path:
    """`data/`, or what HDCID_DATA says."""
    return Path(os.environ.get("HDCID_DATA") or DATA)


def home_dir() -> Path:
    """The cache of downloaded weights: `~/.cache/hdcid`, or what HDCID_HOME says."""
    return Path(os.environ.get("HDCID_HOME") or Path.home() / ".cache" / "hdcid")
