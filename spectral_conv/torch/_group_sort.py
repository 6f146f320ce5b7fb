"""Activations that only reorder: their gradients keep their norms."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from spectral_conv.geometry import as_integer


class GroupSort(nn.Module):
    r"""Sort the channels within groups of neighbours, ascending.

    Parameters
    ----------
    group_size : int
        Channels of a group; must divide the number of channels.
    dim : int
        Axis of the channels.

    Notes
    -----
    Guarantee: 1-Lipschitz, and its Jacobian is a permutation almost everywhere.

    References
    ----------
    C. Anil, J. Lucas, R. Grosse, "Sorting out Lipschitz function approximation", ICML 2019, arXiv:1811.05381.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import GroupSort
    >>> GroupSort(3)(torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0, 6.0]]))
    tensor([[1., 2., 3., 4., 5., 6.]])
    """

    def __init__(self, group_size: int, dim: int = 1) -> None:
        super().__init__()
        self.group_size, self.dim = as_integer("group_size", group_size, minimum=1), dim

    def extra_repr(self) -> str:
        """What `print` shows."""
        return f"group_size={self.group_size}, dim={self.dim}"

    def forward(self, x: Tensor) -> Tensor:
        """Sort."""
        grouped = _grouped(x, self.group_size, self.dim)
        return grouped.sort(dim=-1).values.flatten(-2).movedim(-1, self.dim)


class MaxMin(nn.Module):
    r"""Replace neighbouring channels (a, b) by ``(max(a, b), min(a, b))``.

    Parameters
    ----------
    dim : int
        Axis of the channels, an even number.

    Notes
    -----
    Guarantee: as of `GroupSort`, which it is with groups of two, in descending order.

    References
    ----------
    C. Anil, J. Lucas, R. Grosse, "Sorting out Lipschitz function approximation", ICML 2019, arXiv:1811.05381.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import MaxMin
    >>> MaxMin()(torch.tensor([[1.0, 2.0, 4.0, 3.0]]))
    tensor([[2., 1., 4., 3.]])
    """

    def __init__(self, dim: int = 1) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, x: Tensor) -> Tensor:
        """Sort pairs."""
        a, b = _grouped(x, 2, self.dim).unbind(-1)
        return torch.stack([torch.maximum(a, b), torch.minimum(a, b)], dim=-1).flatten(-2).movedim(-1, self.dim)


def _grouped(x: Tensor, size: int, dim: int) -> Tensor:
    """Channels last, in groups."""
    channels = x.shape[dim]
    if channels % size:
        raise ValueError(f"`group_size` must divide the channels; got {size} and {channels} channels.")
    return x.movedim(dim, -1).unflatten(-1, (-1, size))
