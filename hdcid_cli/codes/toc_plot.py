"""The two heat maps of Fig. 2: similarity of all pairs of codes, before and after TOC."""

from pathlib import Path

import numpy as np

from hdcid_cli.codes.toc import Selection, code_similarities, mean_similarity
from hdcid_cli.core.progress import counted
from hdcid_cli.media.figure import figure_file


def plot_similarities(codebooks: list[np.ndarray], selection: Selection, path: Path) -> None:
    """Draw one row of two heat maps a layer to `path` (png, pdf or svg by its ending)."""
    with figure_file(path, 9, 4 * len(codebooks)) as figure:
        axes = figure.subplots(len(codebooks), 2, squeeze=False)
        for row, (codebook, channels) in enumerate(zip(codebooks, selection.channels, strict=True)):
            for axis, chosen, title in ((axes[row, 0], None, "all"), (axes[row, 1], channels, "TOC's")):
                kept = codebook.shape[1] if chosen is None else len(chosen)
                image = axis.imshow(
                    code_similarities(codebook, chosen), vmin=-1, vmax=1, cmap="RdBu_r", interpolation="nearest"
                )
                mean = mean_similarity(codebook, chosen)
                axis.set_title(f"layer {row + 1}, {title} {counted(kept, 'channel')}: mean {mean:+.3f}", fontsize=10)
                axis.set_xlabel("code")
                axis.set_ylabel("code")
            figure.colorbar(image, ax=axes[row].tolist(), label="cosine similarity")
