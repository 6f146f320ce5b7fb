"""Downsampling that loses nothing: blocks of pixels become channels."""

from __future__ import annotations

from torch import Tensor, nn

from spectral_conv.geometry import as_integer


class InvertibleDownsampling(nn.Module):
    r"""Move blocks of ``factor x ... x factor`` pixels to channels, along all axes of an image.

    The same order as `torch.nn.PixelUnshuffle`, for one to three axes: orthogonal, a permutation of the entries.

    Parameters
    ----------
    factor : int
        Side of a block; must divide every side of the image.

    References
    ----------
    J.-H. Jacobsen, A. Smeulders, E. Oyallon, "i-RevNet: deep invertible networks", ICLR 2018, arXiv:1802.07088.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import InvertibleDownsampling
    >>> down, x = InvertibleDownsampling(2), torch.randn(1, 3, 8, 8)
    >>> down(x).shape, bool((down.inverse(down(x)) == x).all())
    (torch.Size([1, 12, 4, 4]), True)
    """

    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = as_integer("factor", factor, minimum=1)

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"factor={self.factor}"

    def forward(self, x: Tensor) -> Tensor:
        """Pixels to channels: ``(batch, c, *n)`` to ``(batch, c factor^d, *n / factor)``."""
        sides, f = x.shape[2:], self.factor
        if not 1 <= len(sides) <= 3 or any(n % f for n in sides):
            raise ValueError(
                f"`x` must be (batch, channels, *image) with 1 to 3 sides that {f} divides; got {tuple(x.shape)}."
            )
        blocks = x.reshape(*x.shape[:2], *(size for n in sides for size in (n // f, f)))
        d = len(sides)
        order = (0, 1, *range(3, 3 + 2 * d, 2), *range(2, 2 + 2 * d, 2))
        return blocks.permute(order).reshape(x.shape[0], -1, *(n // f for n in sides))

    def inverse(self, y: Tensor) -> Tensor:
        """Channels back to pixels."""
        f, d = self.factor, y.ndim - 2
        if y.shape[1] % f**d:
            raise ValueError(f"`y` must have a multiple of {f**d} channels; got {y.shape[1]}.")
        blocks = y.reshape(y.shape[0], -1, *(f,) * d, *y.shape[2:])
        order = (0, 1, *(axis for i in range(d) for axis in (2 + d + i, 2 + i)))
        return blocks.permute(order).reshape(y.shape[0], -1, *(n * f for n in y.shape[2:]))
