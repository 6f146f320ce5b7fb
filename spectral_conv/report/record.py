"""The record of one analysed layer: what every table, page and file is made from."""

from __future__ import annotations

from dataclasses import dataclass

from spectral_conv.results import Bound, BoundTable, Enclosure

NOT_ASKED = "not asked for"


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """What was found out about one convolution layer.

    Attributes
    ----------
    name : str
        Full name of the weight in its file.
    kernel_shape, layout : tuple of int, str
        The weight as it is stored.
    input_shape, output_shape : tuple of int
        ``(channels, *spatial)``.
    kernel_size, stride, dilation : tuple of int
        One entry per spatial axis.
    padding : tuple of (int, int)
        Pixels before and after each axis.
    groups, padding_mode, transposed : int, str, bool
        The rest of the geometry.
    assumed : tuple of str
        What the file does not say and was assumed.
    folded : tuple of str
        The batch norms that scale the kernel.
    sigma_max, sigma_min : Enclosure or None
        The largest and smallest singular value, dimensionless; None with a reason beside it.
    sigma_max_reason, sigma_min_reason : str or None
        Why the value is missing.
    circulant : (float, float) or None
        Largest and smallest singular value with circular padding, as the FFT gives them; dimensionless.
    circulant_reason : str or None
        Why there is none.
    bounds : BoundTable or None
        What each bound says of the largest value, beside it.
    bounds_reason : str or None
        Why there are none.
    seconds : float
        Time of the analysis, in seconds.

    Examples
    --------
    >>> from spectral_conv import ConvOperator
    >>> from spectral_conv.inspection import inspect_model
    >>> report = inspect_model([ConvOperator([[[[2.0]]]], (4, 4))]).reports[0]
    >>> report.sigma_max.value, report.complete
    (2.0, True)
    """

    name: str
    kernel_shape: tuple[int, ...]
    layout: str
    input_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    kernel_size: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    padding: tuple[tuple[int, int], ...]
    groups: int
    padding_mode: str
    transposed: bool
    assumed: tuple[str, ...] = ()
    folded: tuple[str, ...] = ()
    sigma_max: Enclosure | None = None
    sigma_max_reason: str | None = None
    sigma_min: Enclosure | None = None
    sigma_min_reason: str | None = None
    circulant: tuple[float, float] | None = None
    circulant_reason: str | None = None
    bounds: BoundTable | None = None
    bounds_reason: str | None = NOT_ASKED
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether everything that was asked for was found, with no limit reached."""
        largest = is_reached(self.sigma_max)
        smallest = self.sigma_min_reason == NOT_ASKED or is_reached(self.sigma_min)
        return largest and smallest and (self.bounds_reason == NOT_ASKED or self.bounds is not None)


def is_reached(enclosure: Enclosure | None) -> bool:
    """Whether the value was computed to its tolerance: it exists and is more than a bracket."""
    return enclosure is not None and enclosure.method != "bracket"


def is_upper(bound: Bound) -> bool:
    """Whether the value is at least the largest singular value, for sure."""
    return bound.kind in ("exact", "upper")
