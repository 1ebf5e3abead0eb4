"""A trained segmenter on a user's own video, asked with words or with a sound."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from hdcid_cli.backbones import Options, load_again
from hdcid_cli.backbones.extraction import pad
from hdcid_cli.codes.checkpoint import Checkpoint, open_checkpoint
from hdcid_cli.codes.toc import Selection, apply_toc, read_channels
from hdcid_cli.core.device import resolve_device
from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import file_digest
from hdcid_cli.core.precision import matmul_precision
from hdcid_cli.core.progress import counted
from hdcid_cli.media.clips import AUDIO, VIDEO, MediaClip
from hdcid_cli.media.picture import write_picture
from hdcid_cli.media.video import video_seconds
from hdcid_cli.tasks.segmentation.avsbench import FRAMES
from hdcid_cli.tasks.segmentation.directory import SegmenterDescription, load_segmenter
from hdcid_cli.tasks.segmentation.overlay import tint
from hdcid_cli.tasks.segmentation.queries import to_frames


def predict(
    video: Path,
    query: str,
    segmenter: Path,
    output: Path,
    checkpoint: Path | None,
    checkpoints: Path,
    weights: str | None = None,
    device: str = "auto",
) -> Iterator[dict]:
    """Find what `query` names in every second of a video.

    Args:
        query: a sound or video file, or words.
        segmenter: directory of a trained segmenter.
        output: folder for `NAME_SECOND.png` (what was found, in colour) and `NAME_SECOND_mask.png`.
        checkpoint, checkpoints: the model whose codes the segmenter was trained with, as for `open_checkpoint`;
            None looks among all in the folder.
        weights: of the backbone that makes the query's features, if not its own.

    Yields:
        {"second", "share", "overlay", "mask"} a second: the share of the picture found, in percent, and the files.
    """
    trained, device = SegmenterDescription.read(segmenter), resolve_device(device)
    if trained.query.flag("blind", False):
        raise InputError(f"{segmenter} was trained blind (--blind): it has the same answer to every query.")
    model = load_segmenter(segmenter, trained.judges[0], device)
    asked = _find_model(trained, checkpoint, checkpoints, device)
    vector = torch.from_numpy(_query(query, trained, asked, weights, device)).to(device)
    if vector.shape[1] != trained.settings.query:
        raise InputError(
            f"{segmenter} was trained with queries of {counted(trained.settings.query, 'channel')}, and {asked.path} "
            f"gives {vector.shape[1]}."
        )
    second = 0
    for pictures in _windows(video, model.config.size):
        filled = np.concatenate([pictures, pictures[-1:].repeat(FRAMES - len(pictures), axis=0)])
        with torch.inference_mode():
            found = model(torch.from_numpy(filled)[None].to(device), vector[None])[0].cpu().numpy() > 0
        for picture, mask in zip(pictures, found):
            second += 1
            files = {
                "overlay": output / f"{video.stem}_{second}.png",
                "mask": output / f"{video.stem}_{second}_mask.png",
            }
            write_picture(files["overlay"], tint(picture, mask))
            write_picture(files["mask"], mask.astype(np.uint8) * 255)
            yield {
                "second": second,
                "share": round(100 * float(mask.mean()), 2),
                **{name: str(file) for name, file in files.items()},
            }


def _windows(video: Path, size: int) -> Iterator[np.ndarray]:
    """One frame a second, [up to 5, size, size, 3]: as many as a segmenter sees at once."""
    window = []
    for frames in video_seconds(video, seconds=1 << 30, fps=1, size=size):
        window.append(frames[0])
        if len(window) == FRAMES:
            yield np.stack(window)
            window = []
    if window:
        yield np.stack(window)


def _find_model(trained: SegmenterDescription, where: Path | None, folder: Path, device) -> Checkpoint:
    """The checkpoint that a segmenter was trained with: the one named, or the one in the folder that has its digest."""
    if where is not None:
        checkpoint = open_checkpoint(where, folder, device, trained.read_as)
        if checkpoint.digest != trained.digest:
            raise InputError(
                f"{checkpoint.path} is not the model that the segmenter was trained with (its digest is not "
                f"{trained.digest[:19]}...)."
            )
        return checkpoint
    for path in sorted(folder.glob("*/model.safetensors")):
        if path.is_file() and file_digest(path) == trained.digest:
            return open_checkpoint(path.parent, folder, device, trained.read_as)
    raise InputError(
        f"The model that the segmenter was trained with is not in {folder}/: name its directory with --checkpoint."
    )


def _query(
    query: str, trained: SegmenterDescription, checkpoint: Checkpoint, weights: str | None, device
) -> np.ndarray:
    """[5, Q]: features as in pretraining, the model's codes, and the channels that the segmenter reads."""
    is_file = Path(query).is_file()
    if not is_file and Path(query).suffix.lower() in AUDIO | VIDEO:
        raise InputError(f"There is no sound file {query}.")
    modality = "audio" if is_file else "text"
    learned = checkpoint.learned(modality)
    if learned is None or learned.backbone is None or modality not in checkpoint.inputs:
        raise InputError(
            f"{checkpoint.path} was pretrained without {modality}, so it cannot be asked with "
            f"{'a sound' if is_file else 'words'}."
        )
    name = learned.backbone
    segments = trained.segments
    backbone = load_again(modality, name, Options(seconds=segments, weights=weights, device=str(device)))
    if learned.weights not in (None, backbone.weights):
        raise InputError(
            f"{checkpoint.path} learned from {name} features of other weights: give the same ones with --weights."
        )
    parts = list(backbone.prepare(MediaClip("query", query)))
    if backbone.network:
        parts = [
            part
            for start in range(0, len(parts), backbone.batch_size)
            for part in backbone.network(parts[start : start + backbone.batch_size])
        ]
    features, length = pad(np.concatenate(parts)[:segments].astype(np.float32), segments, zeros=modality == "text")
    if features.shape[1:] != checkpoint.inputs[modality]:
        raise InputError(
            f"{checkpoint.path} reads {checkpoint.inputs[modality]} a segment of {modality}, and {name} gives "
            f"{features.shape[1:]}."
        )
    parameter = next(checkpoint.model.parameters())
    with torch.inference_mode(), matmul_precision(checkpoint.description.precision):
        x = torch.from_numpy(features)[None].to(parameter.device, parameter.dtype)
        quantized = checkpoint.model.encode(modality, x, torch.tensor([length]))[0].float().cpu().numpy()
    selection = None
    if trained.query.values.get("channels") is not None:
        layers, width = quantized.shape[2:]
        selection = Selection(read_channels(trained.query, layers, width), trained.query.text("toc"))
    return to_frames(apply_toc(quantized, selection), np.array([length]))[0]
