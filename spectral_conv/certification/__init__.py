"""What follows from the norms of the layers for the whole network.

Evidence
    network_lipschitz -- an upper bound of a network's Lipschitz constant, with the chain of evidence
    NetworkLipschitz, Link -- what it returns: the bound, and one link per operation

Robustness
    certified_radius -- how far each input may move without a change of its class
    certified_accuracy -- share of samples that are classified rightly within a radius, whatever the attack
    margins -- by how much the logit of the label exceeds all others

Maps of Lipschitz constant 1 that keep the norms of gradients
    max_min, group_sort -- sorting activations
    invertible_downsampling, invertible_upsampling -- pixels to channels, and back
    downsampling_operator -- the same as a ConvOperator
"""

from spectral_conv.certification._certified_radius import certified_accuracy, certified_radius, margins
from spectral_conv.certification._evidence import Link, NetworkLipschitz
from spectral_conv.certification._group_sort import group_sort, max_min
from spectral_conv.certification._invertible_downsampling import (
    downsampling_operator,
    invertible_downsampling,
    invertible_upsampling,
)
from spectral_conv.certification._network import network_lipschitz

__all__ = [
    "Link",
    "NetworkLipschitz",
    "certified_accuracy",
    "certified_radius",
    "downsampling_operator",
    "group_sort",
    "invertible_downsampling",
    "invertible_upsampling",
    "margins",
    "max_min",
    "network_lipschitz",
]
