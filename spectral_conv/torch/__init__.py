"""For training with PyTorch: exact norms, penalties and orthogonal layers on the layers as they are.

Parametrizations of a convolution's weight, for ``torch.nn.utils.parametrize``
    SpectralNorm -- divided by the exact norm, or by a proved upper bound: certainly 1-Lipschitz
    OSSN -- divided by the exact norm, converged at every step
    BCOP, RKO -- orthogonal and orthogonalized kernels
    constrain, export -- put on all convolutions of a model, and taken off a copy of it

Penalties, differentiable in a weight
    orthogonality_gap, frobenius -- ``||M^T M - alpha I||_F^2``, ``1/2 ||M||_F^2``: free of the image size
    lipbound, gram -- upper bounds of the norm
    spectral_norm, smallest_singular_value -- exact, found on the CPU
    regularize -- a weighted sum over the convolutions of a model

Modules
    GroupSort, MaxMin -- activations whose gradients keep their norms
    InvertibleDownsampling -- blocks of pixels to channels

Monitoring
    SpectrumMonitor -- exact spectra while a model trains, off the training thread
    lightning_callback, trainer_callback -- the same for trainers
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError("spectral_conv.torch needs PyTorch: pip install 'spectral-conv[torch]'") from error

from spectral_conv.torch._bcop import BCOP
from spectral_conv.torch._callbacks import lightning_callback, trainer_callback
from spectral_conv.torch._constrain import constrain, export
from spectral_conv.torch._extremes import smallest_singular_value, spectral_norm
from spectral_conv.torch._frobenius import frobenius
from spectral_conv.torch._gram import gram
from spectral_conv.torch._group_sort import GroupSort, MaxMin
from spectral_conv.torch._invertible_downsampling import InvertibleDownsampling
from spectral_conv.torch._lipbound import lipbound
from spectral_conv.torch._monitor import SpectrumMonitor
from spectral_conv.torch._orthogonality_gap import orthogonality_gap
from spectral_conv.torch._regularize import regularize
from spectral_conv.torch._rko import RKO
from spectral_conv.torch._spectral_normalization import OSSN, SpectralNorm

__all__ = [
    "BCOP",
    "OSSN",
    "RKO",
    "GroupSort",
    "InvertibleDownsampling",
    "MaxMin",
    "SpectralNorm",
    "SpectrumMonitor",
    "constrain",
    "export",
    "frobenius",
    "gram",
    "lightning_callback",
    "lipbound",
    "orthogonality_gap",
    "regularize",
    "smallest_singular_value",
    "spectral_norm",
    "trainer_callback",
]
