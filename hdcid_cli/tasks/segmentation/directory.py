"""A segmenter on disk:

config.yaml               everything that decides what is learned
state.pt                  weights, optimizer and position, all that a resumed run needs
best-audio.safetensors    weights of the best epoch, judged by the validation split's sounds (`best-text`: prompts)
metrics.jsonl             one record an epoch: loss, and mIoU on the validation split
"""

from pathlib import Path

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.run_directory import CONFIG, RunKind, read_config
from hdcid_cli.models.stored import read_model
from hdcid_cli.tasks.segmentation.segmenter import Segmenter, SegmenterSettings

SEGMENTER = RunKind(
    "segmenter's directory",
    "hdcid-segmenter",
    version=2,
    saved=("best-*.safetensors", "state.pt"),
    noted=("metrics.jsonl",),
)


def find_segmenter(where: Path | None, folder: Path) -> Path:
    """The directory itself, or that name in the folder of checkpoints; the newest `segment-*` there if None."""
    if where is not None:
        return where if (where / "config.yaml").exists() else folder / where
    found = list(folder.glob("segment-[at]/best-*.safetensors"))
    if not found:
        raise InputError(
            f"There is no trained segmenter in {folder}/: make one with `hdcid segment --train a --test a`, or name "
            "one with --segmenter."
        )
    return max(found, key=lambda file: file.stat().st_mtime).parent


def read_segmenter_config(path: Path) -> dict:
    """`config.yaml` of a segmenter's directory; anything else is an InputError."""
    if not (path / "config.yaml").exists():
        raise InputError(f"There is no trained segmenter in {path}: make one with `hdcid segment --train a`.")
    return read_config(path, SEGMENTER)


def load_segmenter(path: Path, modality: str, device) -> Segmenter:
    """The trained model whose epoch was chosen with the validation queries of a modality."""
    settings = SegmenterSettings(**read_segmenter_config(path)["segmenter"])
    file = path / f"best-{modality}.safetensors"
    if not file.exists():
        raise InputError(f"{path} holds no finished epoch yet: run its `hdcid segment` again.")
    return read_model(file, lambda: Segmenter(settings), path / CONFIG).to(device).eval().requires_grad_(False)
