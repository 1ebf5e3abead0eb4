"""hdcid: unified discrete representations of video, audio and text.

The package is a suite of small commands (`hdcid --help`) over one core.
Data flows one way: media -> backbones -> feature files -> model -> codes ->
tasks -> records -> report. Nothing here imports torch before it is needed.
"""

__version__ = "0.2.0"
