"""`encode`: codes as files that other tools read."""

import json

import h5py
import numpy as np

from hdcid_cli.codes.checkpoint import open_checkpoint
from hdcid_cli.codes.encode import encode
from hdcid_cli.core.features import FeatureFile


def test_encoded_files_hold_codes_and_their_vectors(hdcid, tmp_path):
    from worlds import write_features

    _, ids = write_features(tmp_path / "features", clips=12)
    assert hdcid("pretrain", "--epochs", "1", "--dim", "16", "--codebook", "12").returncode == 0
    done = hdcid("encode", "--toc", "5")
    assert done.returncode == 0, done.stderr
    written = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(record["modality"], record["clips"], record["shape"]) for record in written] == [
        ("audio", 12, [6, 10]),
        ("video", 12, [6, 10]),
    ]

    checkpoint = open_checkpoint(None, tmp_path / "checkpoints")
    with FeatureFile([tmp_path / "features" / "audio.h5"]) as features:
        codes = encode(checkpoint, features)
    with FeatureFile([tmp_path / "codes" / "audio.h5"]) as file:
        assert file.ids == ids and not file.damaged() and file.weights == checkpoint.digest
        values = file.read(range(12))
    with h5py.File(tmp_path / "codes" / "audio.h5") as file:
        indices = file["indices"][:]
    assert np.array_equal(indices, codes.indices) and indices.shape == (12, 6, 2, 1)
    for layer, codebook in enumerate(checkpoint.codebooks):
        part = values[..., 5 * layer : 5 * layer + 5]  # five whole channels of each layer's code, whichever TOC chose
        rows = codebook[indices[:, :, layer, 0]]
        assert all(np.isclose(rows, part[..., column, None], atol=1e-5).all((0, 1)).any() for column in range(5))

    assert hdcid("info", "codes").returncode == 0
    for arguments, message in (
        (("features/audio.h5", "-o", "features/audio.h5"), "is the input"),
        (("features/audio.h5", "features/audio.h5"), "Several files would become"),
        (("nothing.h5",), "There is no feature file nothing.h5"),
    ):
        refused = hdcid("encode", *arguments)
        assert refused.returncode == 2 and message in refused.stderr
