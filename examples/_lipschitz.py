"""Networks whose layers stretch nothing, after Li et al. (2019), and the proof of it for a trained one."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from spectral_conv import ConvOperator, orthogonal, spectral_norm
from spectral_conv.certification import NetworkLipschitz, downsampling_operator, network_lipschitz
from spectral_conv.torch import BCOP, OSSN, RKO, InvertibleDownsampling, export

MAPS = {"OSSN": OSSN, "RKO": RKO, "BCOP": BCOP}


class LipschitzNet(nn.Module):
    """Two convolutions and two matrices, each of norm at most 1, between activations of Lipschitz constant 1.

    The "Small" network of Wong et al. as Li et al. change it: what was a 4 x 4 convolution of stride 2 becomes blocks
    of pixels moved to the channels and a 2 x 2 convolution with circular padding. Matrices are 1 x 1 convolutions of
    a single pixel with orthonormal rows, whatever the method.
    """

    def __init__(self, side: int, outputs: int, method: str, activation: nn.Module) -> None:
        super().__init__()
        self.sides = (side // 2, side // 4)
        features = 32 * self.sides[1] ** 2
        self.method = method
        self.activation = activation
        self.blocks = InvertibleDownsampling(2)
        self.conv1 = _constrained(_circular(4, 16), self.sides[0], method)
        self.conv2 = _constrained(_circular(64, 32), self.sides[1], method)
        self.full1 = _constrained(nn.Conv2d(features, 100, 1), 1, "RKO")
        self.full2 = _constrained(nn.Conv2d(100, outputs, 1), 1, "RKO")

    def forward(self, images: Tensor) -> Tensor:
        """Outputs ``(samples, outputs)`` of images ``(samples, 1, side, side)``."""
        x = self.activation(self.conv1(self.blocks(images)))
        x = self.activation(self.conv2(self.blocks(x)))
        x = self.activation(self.full1(x.flatten(1)[..., None, None]))
        return self.full2(x).flatten(1)

    def convolutions(self) -> list[ConvOperator]:
        """The two convolutions as they are now."""
        return [_operator(conv, n) for conv, n in zip((self.conv1, self.conv2), self.sides, strict=True)]

    def project(self) -> None:
        """Clip the singular values of plain convolutions (SVCM), in 50 rounds at most, as the paper does."""
        for layer, conv in zip((self.conv1, self.conv2), self.convolutions(), strict=True):
            _assign(layer, orthogonal.svcm(conv, maxiter=50, on_failure="return").kernel)

    def frozen(self) -> "LipschitzNet":
        """A copy with plain weights in double precision, none of norm above 1 but for rounding."""
        net = export(self).double().eval().requires_grad_(False)
        if self.method == "SVCM":
            # Training ends between two projections, and their rounds end early: what is above 1 is divided away.
            net.project()
            for layer, conv in zip((net.conv1, net.conv2), net.convolutions(), strict=True):
                _assign(layer, conv.kernel / max(1.0, spectral_norm(conv).upper))
        return net

    def proof(self) -> NetworkLipschitz:
        """A bound of the network's Lipschitz constant from the exact norms of all layers."""
        first, second = self.convolutions()
        half, quarter = self.sides
        blocks = [downsampling_operator(c, (n, n), 2) for c, n in ((1, 2 * half), (16, 2 * quarter))]
        chain = [blocks[0], first, blocks[1], second, _operator(self.full1, 1), _operator(self.full2, 1)]
        found = network_lipschitz(chain, spectral_norm)
        if found.kind != "upper":
            raise SystemExit(f"The norms of the layers are not proved:\n{found.to_text()}")
        return found


def _circular(into: int, out: int) -> nn.Conv2d:
    return nn.Conv2d(into, out, 2, padding="same", padding_mode="circular")


def _constrained(layer: nn.Conv2d, side: int, method: str) -> nn.Conv2d:
    if method in MAPS:
        register_parametrization(layer, "weight", MAPS[method]((side, side), layer=layer))
    return layer


def _operator(layer: nn.Conv2d, side: int) -> ConvOperator:
    weight = layer.weight.detach().double().numpy()
    return ConvOperator(weight, (side, side), layout="OIHW", padding="same", padding_mode="circular")


def _assign(layer: nn.Conv2d, kernel: NDArray[np.floating]) -> None:
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(kernel.transpose(3, 2, 0, 1)))
