"""What the columns of encoded features are: of which layer and channel, and what every code says in them."""

import numpy as np

from hdcid_cli.codes.checkpoint import Checkpoint
from hdcid_cli.codes.encode import decode
from hdcid_cli.codes.toc import Selection, apply_toc


def columns(checkpoint: Checkpoint, selection: Selection | None = None) -> np.ndarray:
    """(layer, counted from 1; channel, counted from 0) of each column, int32 [C, 2]."""
    layers = checkpoint.model.code_layers
    width = layers[0].quantizer.width
    places = apply_toc(np.arange(len(layers) * width).reshape(1, 1, len(layers), width), selection)[0, 0]
    return np.stack([places // width + 1, places % width], axis=1).astype(np.int32)


def codebook(checkpoint: Checkpoint, modality: str, selection: Selection | None = None) -> np.ndarray:
    """What each of L codes adds to each column, for the S stages: float32 [S, L, C].

    The features of a segment are the sum over s of `codebook[s, indices[layer, s]]`, column by column, each with the
    codes of its own layer.
    """
    layers = checkpoint.model.code_layers
    codes, stages = layers[0].quantizer.codes, layers[0].quantizer.stages
    indices = np.zeros((stages, codes, 1, len(layers), stages), np.int32)
    for stage in range(stages):
        indices[stage, ..., stage] = np.arange(codes).reshape(-1, 1, 1)
    said = decode(checkpoint, indices.reshape(stages * codes, 1, len(layers), stages), modality)
    table = apply_toc(said, selection).reshape(stages, codes, -1)
    # The later stages stood beside the first code of the first one, which is counted once.
    table[1:] -= table[0, 0]
    return table
