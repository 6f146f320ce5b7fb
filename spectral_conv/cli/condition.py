"""What makes a run fail: an expression over the columns of the table, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

    from spectral_conv.report.record import LayerReport


class Condition:
    """An expression that is true or false for each layer.

    Parameters
    ----------
    text : str
        In the language of ``pandas.DataFrame.eval``, such as ``sigma_max > 1.01``.

    Raises
    ------
    ValueError
        It is no such expression, or names something that the table does not have.

    Examples
    --------
    >>> from spectral_conv import ConvOperator, inspect_model
    >>> inspection = inspect_model([ConvOperator([[[[x]]]], (4, 4)) for x in (1.0, 2.0)])
    >>> Condition("sigma_max > 1.01").layers(inspection.reports)
    ['layer1']
    """

    def __init__(self, text: str) -> None:
        self.text = text
        sample = _frame([_sample()])
        try:
            self._where(sample)
        except Exception as error:  # whatever a wrong expression may raise
            raise ValueError(
                f"`--fail-if` must be an expression over the columns of the table that is true or false for each "
                f"layer, such as 'sigma_max > 1.01'; got {text!r}: {_words(error)}. The columns are "
                f"{', '.join(map(str, sample.columns))}; `layer` is the name."
            ) from error

    def layers(self, reports: Sequence[LayerReport]) -> list[str]:
        """Return the names of the layers for which it holds; a comparison with a missing number does not.

        Raises
        ------
        ValueError
            It has no answer for these layers, such as the integer part of a number that is missing.
        """
        if not reports:
            return []
        try:
            holds = self._where(_frame(reports))
        except Exception as error:  # whatever an expression may raise
            raise ValueError(f"{self.text!r} has no answer: {_words(error)}.") from error
        return [report.name for report, held in zip(reports, holds, strict=True) if held]

    def _where(self, frame: pd.DataFrame) -> Any:
        if "@" in self.text:  # to pandas, a variable of this very code
            raise ValueError("@ has no meaning here")
        # Python's engine, so that it does not matter which packages are there.
        found = frame.eval(self.text, engine="python")
        if str(getattr(found, "dtype", "")) != "bool" or getattr(found, "shape", ()) != (len(frame),):
            raise TypeError("it is not true or false for each layer")
        return found


def _words(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _frame(reports: Sequence[LayerReport]) -> pd.DataFrame:
    from spectral_conv.report.dataset import layer_dataset

    return layer_dataset(reports).drop_dims("bound", errors="ignore").to_dataframe()


def _sample() -> LayerReport:
    """A layer like any other: each column has an entry of its type."""
    from spectral_conv.report.record import LayerReport
    from spectral_conv.results import Enclosure

    one = Enclosure(lower=1.0, value=1.0, upper=1.0, basis="residual", method="dense", applications=0)
    return LayerReport(
        name="layer",
        kernel_shape=(1, 1, 1, 1),
        layout="OIHW",
        input_shape=(1, 1, 1),
        output_shape=(1, 1, 1),
        kernel_size=(1, 1),
        stride=(1, 1),
        dilation=(1, 1),
        padding=((0, 0), (0, 0)),
        groups=1,
        padding_mode="zeros",
        transposed=False,
        sigma_max=one,
        sigma_min=one,
        circulant=(1.0, 1.0),
    )
