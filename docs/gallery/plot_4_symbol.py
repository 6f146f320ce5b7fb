"""
The symbol over the frequencies
===============================

For every frequency the symbol is a small matrix. Its largest singular value says how much the layer stretches a plane
wave of that frequency, far from the border. The peak is where the search for the exact norm begins.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, singular_triplets, spectral_norm, symbol

kernel = np.random.default_rng(3).standard_normal((5, 5, 2, 3))
conv = ConvOperator(kernel, input_shape=(32, 32))
grid = 64
values = np.linalg.svd(symbol(conv, grid=(grid, grid)), compute_uv=False)  # (64, 64, 2)

figure, axes = plt.subplots(1, 2, figsize=(10, 4.2), layout="constrained")
for ax, number, name in zip(axes, (0, -1), ("largest", "smallest"), strict=True):
    shifted = np.fft.fftshift(values[..., number])
    image = ax.imshow(shifted, extent=(-np.pi, np.pi, np.pi, -np.pi), cmap="viridis", vmin=0)
    ax.set(title=f"{name} singular value of F(w)", xlabel="frequency (radians per pixel)", ylabel="frequency")
    figure.colorbar(image, ax=ax)

# %%
# The signal that the zero-padded layer stretches most is the wave of the peak, under a window that falls to zero at
# the border.

top = singular_triplets(conv)
print(f"sup over the grid {values.max():.4f}, exact norm at 32 x 32 {spectral_norm(conv).value:.4f}")
figure, axes = plt.subplots(1, 2, figsize=(9, 4), layout="constrained")
for channel, ax in enumerate(axes):
    limit = np.abs(top.right[0]).max()
    ax.imshow(top.right[0, channel], cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=f"strongest input, channel {channel}", xlabel="pixel", ylabel="pixel")
