"""Feature files: one HDF5 file a modality, one row a clip.

Layout (format "hdcid-features", version 1):

    attributes  format, version, modality, backbone, weights, segment_seconds
    ids         [N] UTF-8 clip names
    features    [N, T, ...] float16 or float32, one clip a chunk
    length      [N] number of valid segments; 0 marks a clip that could not be read
    crc32       [N] checksum of each row's bytes, so that damage is found

A clip shorter than T segments repeats its last one (as published) and says so in
`length`. All rows are allocated before the first is written, and a row's length is
written after its features, in place and past the HDF5 library: no metadata changes,
so `kill -9` or a full disk can lose only the row being written, and a file is
extended by its next run. Until every row has been tried the file is called
`NAME.h5.part`.

Several shards (`video.shard-1-of-4.h5`, ...) are read as one.
"""

from hdcid_cli.core.features.file import FeatureFile, Inspected, open_features
from hdcid_cli.core.features.layout import FORMAT, MAX_CLIP_BYTES, VERSION
from hdcid_cli.core.features.paths import feature_paths, shard_path
from hdcid_cli.core.features.writer import FeatureWriter

__all__ = [
    "FORMAT",
    "MAX_CLIP_BYTES",
    "VERSION",
    "FeatureFile",
    "FeatureWriter",
    "Inspected",
    "feature_paths",
    "open_features",
    "shard_path",
]
