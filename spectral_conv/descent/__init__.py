"""Gradient descent on a kernel, with its exact spectrum recorded on the way.

driver -- `descend`: what is asked, checked
run -- the descent in progress: evaluate, record, step
recording -- what is recorded of every iteration, and where
iterate -- where a descent stands
directions -- where to go
steps -- how far
stopping -- when it ends
"""

from spectral_conv.descent.driver import descend

__all__ = ["descend"]
