"""Single pictures: PNG, JPEG and whatever else FFmpeg decodes, to arrays and back."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from hdcid_cli.core.errors import InputError
from hdcid_cli.core.files import atomic_path
from hdcid_cli.media.stream import decode


def read_picture(
    path: Path | str, layout: str = "rgb24", size: int | None = None, interpolation: str = "BILINEAR"
) -> np.ndarray:
    """Decode a picture; grey, palette, 16-bit and transparent ones become what `layout` asks for.

    Args:
        layout: "rgb24" gives [height, width, 3], "gray" gives [height, width]; both uint8.
        size: scale to a square of this many pixels; by default the picture's own size.
        interpolation: "BILINEAR", or "POINT" where in-between values would mean nothing (masks).

    Raises:
        InputError: there is no such file, or it is no picture.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no picture {path}.")
    try:
        _, _, frame = next(decode(path, "video"))
    except InputError as error:
        raise InputError(f"{path} is not a picture that can be read.") from error
    return frame.reformat(size, size, format=layout, interpolation=interpolation).to_ndarray()


def encode_png(picture: np.ndarray) -> bytes:
    """[height, width, 3] or [height, width] uint8 as a PNG file's bytes, which depend on the pixels alone."""
    layout = "rgb24" if picture.ndim == 3 else "gray"
    encoder = av.CodecContext.create("png", "w")
    encoder.height, encoder.width, encoder.pix_fmt = *picture.shape[:2], layout
    encoder.time_base, encoder.thread_count = Fraction(1, 1), 1
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format=layout)
    return b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode()]))


def write_picture(path: Path | str, picture: np.ndarray) -> None:
    """Write [height, width, 3] or [height, width] uint8 as PNG, atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(encode_png(picture))
