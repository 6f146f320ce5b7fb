"""Orthogonal convolutions, and others whose layers stretch nothing: HWIO kernels in NumPy.

Maps from free parameters
    bcop -- block convolutions of projectors: orthogonal with circular padding of every size
    rko -- the reshaped kernel orthogonalized: norm at most 1
    ossn -- divided by the true norm of the layer: norm 1
    bcop_with_vjp, rko_with_vjp, ossn_with_vjp -- the same with vector-Jacobian products
    BcopParameters, bcop_parameters -- free parameters of `bcop`, and back from a kernel
    Differentiable -- what the maps with derivatives return
    sample_bcop, sample_rko, sample_ossn -- random kernels

Projections and tests
    clip, ClippedLayer -- the nearest kernel whose layer, as it is, has a given norm at most
    svcm, ClippedKernel -- circular singular values clipped, taps masked, to convergence
    is_orthogonal -- by the exact spectrum of the layer as it is
    bjorck -- iteration to the nearest orthonormal matrix
    IterationLimitError -- what iterations raise that stop early

Structure
    compose, factorize, ProjectorFactors -- orthogonal convolutions as products of [P, I - P], and back
    component, Component -- connected component of a 1-D orthogonal convolution
    with_auxiliary_channels -- any ranks inside twice the channels and half ranks
    block_convolution -- kernel of one convolution after another
    projector, nearest_projector, sample_projector -- symmetric projectors
"""

from spectral_conv.orthogonal._bcop import BcopParameters, bcop, bcop_parameters, bcop_with_vjp, sample_bcop
from spectral_conv.orthogonal._bjorck import bjorck
from spectral_conv.orthogonal._block_convolution import block_convolution
from spectral_conv.orthogonal._clip import ClippedLayer, clip
from spectral_conv.orthogonal._differentiable import Differentiable
from spectral_conv.orthogonal._factorization import Component, component, factorize
from spectral_conv.orthogonal._iteration_limit import IterationLimitError
from spectral_conv.orthogonal._membership import is_orthogonal
from spectral_conv.orthogonal._ossn import ossn, ossn_with_vjp, sample_ossn
from spectral_conv.orthogonal._projectors import nearest_projector, projector, sample_projector
from spectral_conv.orthogonal._representation import ProjectorFactors, compose, with_auxiliary_channels
from spectral_conv.orthogonal._rko import rko, rko_with_vjp, sample_rko
from spectral_conv.orthogonal._svcm import ClippedKernel, svcm

__all__ = [
    "BcopParameters",
    "ClippedKernel",
    "ClippedLayer",
    "Component",
    "Differentiable",
    "IterationLimitError",
    "ProjectorFactors",
    "bcop",
    "bcop_parameters",
    "bcop_with_vjp",
    "bjorck",
    "block_convolution",
    "clip",
    "component",
    "compose",
    "factorize",
    "is_orthogonal",
    "nearest_projector",
    "ossn",
    "ossn_with_vjp",
    "projector",
    "rko",
    "rko_with_vjp",
    "sample_bcop",
    "sample_ossn",
    "sample_projector",
    "sample_rko",
    "svcm",
    "with_auxiliary_channels",
]
