"""Fixtures that every test may use."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A machine that is shared may take any time for an example.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# A job in the background inherits an ignored SIGINT, and so would every process that the tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data and reference vectors (HDCID_SHARED, default ../shared)."""
    folder = Path(os.environ.get("HDCID_SHARED", Path(__file__).parents[1] / ".." / "shared")).resolve()
    if not (folder / "data").is_dir():
        pytest.skip("HDCID_SHARED: the folder of real data and reference vectors is not here")
    return folder / "data"


@pytest.fixture
def double():
    """Everything in float64, on one thread, from the same seed."""
    import torch

    torch.set_num_threads(1)
    torch.manual_seed(0)
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.fixture
def hdcid(tmp_path):
    """Run the command line as a process in an empty folder: `hdcid("info", "x.h5")` -> CompletedProcess."""

    def run(*arguments, cwd=tmp_path, stdin=None, env=None, timeout=300):
        return subprocess.run(
            [sys.executable, "-m", "hdcid_cli", *map(str, arguments)],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, "OMP_NUM_THREADS": "1", **(env or {})},
        )

    return run
