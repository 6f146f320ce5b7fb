"""What follows from the norms of the layers for the whole network.

network_lipschitz -- an upper bound of a network's Lipschitz constant, with the chain of evidence
NetworkLipschitz, Link -- what it returns: the bound, and one link per operation
"""

from spectral_conv.certification._evidence import Link, NetworkLipschitz
from spectral_conv.certification._network import network_lipschitz

__all__ = ["Link", "NetworkLipschitz", "network_lipschitz"]
