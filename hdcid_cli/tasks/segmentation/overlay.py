"""Pictures of what a segmenter found: frame, truth and prediction side by side, with the query above."""

from pathlib import Path

import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import atomic_path, safe_name
from hdcid_cli.tasks.segmentation.avsbench import Clip

TRUTH, FOUND = (60, 200, 90), (240, 70, 60)


def tint(picture: np.ndarray, mask: np.ndarray, colour: tuple[int, int, int] = FOUND) -> np.ndarray:
    """Colour the masked pixels and darken the others: [H, W, 3] uint8, [H, W] bool -> [H, W, 3] uint8."""
    inside = 0.45 * picture + 0.55 * np.array(colour)
    return np.where(mask[..., None], inside, 0.6 * picture).astype(np.uint8)


def require_matplotlib() -> None:
    """Raise InputError if pictures with text cannot be drawn here."""
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise InputError("--overlay needs matplotlib: install it with `pip install hdcid[plot]`.") from error


class Overlays:
    """Writes `FOLDER/CATEGORY-NAME.png` for each clip that `evaluate` hands it.

    Rows: the frames, the true masks, and the masks found by each query.

    Args:
        prompts: {category: prompt}, the words of a text query.
    """

    def __init__(self, folder: Path, prompts: dict[str, str]):
        require_matplotlib()
        self.folder, self.prompts = Path(folder), prompts

    def __call__(self, clip: Clip, pictures: np.ndarray, truth: np.ndarray, found: dict[str, np.ndarray]) -> None:
        """
        Args:
            pictures: [T, H, W, 3] uint8.
            truth: [T, H, W] bool.
            found: {modality: probabilities [T, H, W]}.
        """
        from matplotlib.figure import Figure

        masks = {name: probability > 0.5 for name, probability in found.items()}
        rows = [("frame", pictures), ("truth", _tinted(pictures, truth, TRUTH))]
        rows += [(self._label(name, clip, mask, truth), _tinted(pictures, mask, FOUND)) for name, mask in masks.items()]
        frames = len(pictures)
        figure = Figure(figsize=(1.5 * frames + 0.1, 1.75 * len(rows) + 0.3), dpi=100, layout="constrained")
        figure.suptitle(f"{clip.name}: {clip.category}", fontsize=10, parse_math=False)
        for strip, (label, images) in zip(figure.subfigures(len(rows), 1).ravel(), rows):
            strip.suptitle(label, fontsize=8, x=0.01, ha="left", parse_math=False)
            for axes, image in zip(strip.subplots(1, frames), images):
                axes.imshow(image)
                axes.axis("off")
        # Clips of the two protocols' epochs would overwrite each other but for the modality in the name.
        name = safe_name(f"{clip.category}-{clip.name}-{'+'.join(found)}")
        with atomic_path(self.folder / f"{name}.png") as temporary:
            figure.savefig(temporary, format="png")

    def _label(self, modality: str, clip: Clip, mask: np.ndarray, truth: np.ndarray) -> str:
        words = f"“{self.prompts.get(clip.category, clip.category)}”" if modality == "text" else "the clip's own sound"
        overlap = (mask & truth).sum() / max((mask | truth).sum(), 1)
        return f"found by {modality}: {words} ({100 * overlap:.0f} % of the union)"


def _tinted(pictures: np.ndarray, masks: np.ndarray, colour: tuple[int, int, int]) -> list[np.ndarray]:
    return [tint(picture, mask, colour) for picture, mask in zip(pictures, masks)]
