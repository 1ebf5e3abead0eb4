"""Where in a clip one modality uses the codes that another uses: localisation that nobody supervised."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.core.features import FeatureFile
from hdcid_cli.media.figure import figure_file
from hdcid_cli.tasks.retrieval import soft_codes


def locate(
    checkpoint: Checkpoint, clip: str, query: FeatureFile, target: FeatureFile, plot: Path | None = None
) -> list[dict]:
    """Where in a clip `target` uses the codes that `query` uses, one row a segment of `target`; drawn to `plot`."""
    sides = [_codes(checkpoint, clip, file) for file in (query, target)]
    agreement = agreement_map(sides[0], sides[1], [book.rows for book in checkpoint.books])
    names, seconds = (query.modality, target.modality), (query.segment_seconds, target.segment_seconds)
    if plot:
        draw_map(agreement, clip, names, seconds, plot)
    return list(_rows(clip, agreement, sides, names, seconds))


def _codes(checkpoint: Checkpoint, clip: str, file: FeatureFile) -> np.ndarray:
    """Codes of a clip's valid segments, [T, books]."""
    [row] = file.rows([clip])
    codes = encode(checkpoint, file)
    return codes.by_book[row, : codes.length[row]]


def _rows(
    clip: str,
    agreement: np.ndarray,
    codes: Sequence[np.ndarray],
    names: tuple[str, str],
    seconds: tuple[float, float],
) -> Iterator[dict]:
    for step, column in enumerate(agreement.T):
        best = int(column.argmax())
        yield {
            "clip": clip,
            "second": _plain(step * seconds[1]),
            "agreement": round(float(column.max()), 4),
            f"{names[0]} second": _plain(best * seconds[0]),
            f"codes of {names[1]}": codes[1][step].tolist(),
            f"codes of {names[0]}": codes[0][best].tolist(),
        }


def _plain(seconds: float) -> float:
    """Whole seconds without decimals."""
    return int(seconds) if seconds == int(seconds) else seconds


def agreement_map(first: np.ndarray, second: np.ndarray, books: Sequence[np.ndarray]) -> np.ndarray:
    """How alike the codes of every two segments of one clip are: [T, books], [T', books] -> [T, T'] in 0..1.

    Mean over layers and blocks of the overlap sum_l sqrt(p_l q_l) of what the two codes say of all codes; 1 for the
    same code.
    """
    maps = []
    for number, rows in enumerate(books):
        root = np.sqrt(soft_codes(rows))
        maps.append(root[first[:, number]] @ root[second[:, number]].T)
    return np.mean(maps, axis=0)


def draw_map(agreement: np.ndarray, clip: str, names: tuple[str, str], seconds: Sequence[float], path: Path) -> None:
    """Draw [T, T'] to `path` (png, pdf or svg by its ending): the first modality down, the second across."""
    height, width = agreement.shape[0] * seconds[0], agreement.shape[1] * seconds[1]
    with figure_file(path, 6, 5) as figure:
        axis = figure.subplots()
        image = axis.imshow(
            agreement,
            vmin=0,
            vmax=1,
            cmap="viridis",
            interpolation="nearest",
            extent=(0, width, height, 0),
            aspect="auto",
        )
        axis.set_title(f"{clip}: where {names[1]} uses the codes of {names[0]}", fontsize=10, parse_math=False)
        axis.set_xlabel(f"{names[1]} (s)")
        axis.set_ylabel(f"{names[0]} (s)")
        figure.colorbar(image, ax=axis, label="agreement of codes")
