"""The two heat maps of Fig. 2: similarity of all pairs of codes, before and after TOC."""

from pathlib import Path

import numpy as np

from hdcid_cli.codes.toc import Selection, code_similarities, mean_similarity
from hdcid_cli.core.errors import HdcidError
from hdcid_cli.core.files import atomic_path
from hdcid_cli.core.progress import counted


def plot_similarities(codebooks: list[np.ndarray], selection: Selection, path: Path) -> None:
    """Draw one row of two heat maps a layer to `path` (png, pdf or svg by its ending)."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise HdcidError("Pictures need matplotlib: install it with `pip install hdcid[plot]`.") from error

    figure = Figure(figsize=(9, 4 * len(codebooks)), layout="constrained")
    FigureCanvasAgg(figure)
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
    with atomic_path(path, named=True) as temporary:
        try:
            figure.savefig(temporary, format=path.suffix.lstrip(".").lower() or "png", dpi=120)
        except ValueError as error:
            raise HdcidError(
                f"{path}: pictures can be png, pdf or svg ({str(error).split('(')[0].strip()})."
            ) from error
