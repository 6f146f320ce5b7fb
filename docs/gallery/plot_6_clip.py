"""
Clip the norm of a layer
========================

The nearest kernel whose layer has a norm of 1 at most, beside what dividing by the norm does.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, orthogonal, singular_values

conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 4, 4)) / 4, input_shape=(12, 12))
clipped = orthogonal.clip(conv, 1.0)
values = singular_values(conv)
scaled = conv.with_kernel(conv.kernel / values[0])
print(f"clipped: norm {clipped.norm.value:.6f}, moved by {clipped.distance:.3f}")
print(f"every such kernel is at least {clipped.least_distance:.3f} away")
print(f"divided: moved by {np.linalg.norm(scaled.kernel - conv.kernel):.3f}")

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
number = np.arange(1, values.size + 1)
ax.plot(number, values, lw=2, label="before")
ax.plot(number, singular_values(clipped.operator), lw=2, label="clipped to 1")
ax.plot(number, singular_values(scaled), lw=2, ls="--", label="divided by the norm")
ax.axhline(1, color="k", lw=0.8)
ax.set(xlabel="number, the largest first", ylabel="singular value", title="A 3x3x4x4 layer on 12 x 12 pixels")
_ = ax.legend()

# %%
# Clipping moves the kernel less than dividing does, and keeps more of the small values. The second line of the output
# is proved: by duality no kernel of norm 1 is nearer.
