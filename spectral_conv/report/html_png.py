"""Pictures of few colours as small PNG files."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EIGHT_BITS, _BY_PALETTE = 8, 3
_MOST_COLOURS = 256


def palette_png(png: bytes) -> bytes:
    """Write a PNG picture with a palette, the same pixels in fewer bytes.

    Parameters
    ----------
    png : bytes
        The picture.

    Returns
    -------
    bytes
        The smaller one of both; the one that came where it has more than 256 colours or is translucent.

    References
    ----------
    W3C, Portable Network Graphics (PNG) Specification (Third Edition), 11.2: critical chunks.

    Examples
    --------
    >>> from matplotlib.image import imread, imsave
    >>> buffer = io.BytesIO()
    >>> imsave(buffer, np.random.default_rng(0).standard_normal((32, 32)))
    >>> png = buffer.getvalue()
    >>> small = palette_png(png)
    >>> len(small) < 0.7 * len(png)
    True
    >>> np.array_equal(imread(io.BytesIO(small))[..., :3], imread(io.BytesIO(png))[..., :3])
    True
    """
    from matplotlib.image import imread

    pixels = np.rint(255.0 * imread(io.BytesIO(png), format="png")).astype(np.uint8)
    if pixels.ndim != 3 or not np.all(pixels[..., 3:] == 255):
        return png
    height, width = pixels.shape[:2]
    colours, places = np.unique(pixels[..., :3].reshape(-1, 3), axis=0, return_inverse=True)
    if len(colours) > _MOST_COLOURS:
        return png
    # Each row begins with its filter, 0 for none.
    rows = np.pad(places.reshape(height, width).astype(np.uint8), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", width, height, _EIGHT_BITS, _BY_PALETTE, 0, 0, 0)
    chunks = (
        (b"IHDR", header),
        (b"PLTE", colours.astype(np.uint8).tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    small = _SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)
    return min(small, png, key=len)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
