"""
Bounds beside the truth
=======================

Every bound of the norm that is in use, how far it is from the exact value, and what it costs.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, bounds, plot_bounds

conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 16, 16)), input_shape=(16, 16))
table = bounds.table(conv)
for row in table.rows:
    print(f"{row.method:22} {row.ratio:7.4f}  {row.bound.kind}")

figure, ax = plt.subplots(figsize=(9, 5.5), layout="constrained")
_ = plot_bounds(table, ax=ax)

# %%
# Some methods that pass for bounds are none: they are labelled "lower" or "estimate". A bound has a gradient, too:

value, gradient = bounds.fantastic_four.value_and_grad(conv)
print(f"{value:.3f}, gradient of shape {gradient.shape}")
