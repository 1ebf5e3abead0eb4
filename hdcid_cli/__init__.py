"""hdcid: unified discrete representations of video, audio and text.

The package is a suite of small commands (`hdcid --help`) over one core.
Data flows one way: media -> backbones -> feature files -> model -> codes ->
tasks -> records -> report. Nothing here imports torch before it is needed.
"""

__version__ = "0.2.0"


def __getattr__(name: str):
    """The names of `hdcid_cli.api`, with the first of which it is imported."""
    if name.startswith("_") or name == "api":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from hdcid_cli import api

    return getattr(api, name)
