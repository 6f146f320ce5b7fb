"""A model, however it was given."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from spectral_conv.models._model import ConvLayer, Model
from spectral_conv.models._read import read_model
from spectral_conv.operator import ConvOperator


def open_model(model: Any, *, input_size: Any = None, layers: Any = None) -> Model:
    """Return a Model as it is, operators as one, and read anything else with `read_model`.

    Parameters
    ----------
    model : Model, sequence of ConvOperator, path or torch.nn.Module
        The model.
    input_size, layers
        As in `read_model`; a Model and operators know their geometry and take neither.

    Raises
    ------
    ValueError
        `model` is none of these, or the geometry is given twice.
    ModelError
        See `read_model`.

    Examples
    --------
    >>> open_model([ConvOperator([[[[2.0]]]], (4, 4))]).layers[0].name
    'layer0'
    """
    operators = isinstance(model, Sequence) and not isinstance(model, str | bytes)
    if not operators and not isinstance(model, Model):
        return read_model(model, input_size=input_size, layers=layers)
    if input_size is not None or layers is not None:
        raise ValueError(
            "`input_size` and `layers` go with a path: a Model or a ConvOperator knows its geometry already."
        )
    return model if isinstance(model, Model) else _of_operators(model)


def _of_operators(operators: Sequence[Any]) -> Model:
    for conv in operators:
        if not isinstance(conv, ConvOperator):
            raise ValueError(
                "`model` must be a path, a Model or a sequence of ConvOperator; got a sequence with a "
                f"{type(conv).__name__}. Read a file with read_model(path)."
            )
    layers = (
        ConvLayer(
            name=f"layer{i}",
            operator=conv,
            assumed=(),
            kernel_shape=conv.kernel.shape,
            layout=("WIO", "HWIO", "DHWIO")[conv.geometry.ndim - 1],
        )
        for i, conv in enumerate(operators)
    )
    return Model(path=Path("operators"), format="operators", layers=tuple(layers), skipped=())
