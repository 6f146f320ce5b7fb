"""
Modes at the border
===================

Square layers with "same" padding have singular values that fall exponentially with the image size. Their signals live
at the border or in a corner. The circular layer has no border, so that the FFT cannot see them.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, circulant_singular_values, singular_triplets

kernel = np.random.default_rng(5).standard_normal((3, 3, 1, 1))
sizes = np.arange(4, 33, 2)
layers = [ConvOperator(kernel, (n, n)) for n in sizes]
least = [singular_triplets(conv, which="smallest") for conv in layers]
fft = [circulant_singular_values(conv).min() for conv in layers]

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
ax.semilogy(sizes, [found.values[0] for found in least], "o-", label="exact, zero padding")
ax.semilogy(sizes, fft, "s--", label="by FFT, circular")
ax.set(xlabel="image size N (pixels per axis)", ylabel="smallest singular value", title="One 3x3 kernel, one channel")
_ = ax.legend()

# %%
# The signals of which least is left.

figure, axes = plt.subplots(1, 3, figsize=(10, 3.6), layout="constrained")
for ax, n in zip(axes, (8, 16, 32), strict=True):
    found = least[list(sizes).index(n)]
    signal = found.right[0, 0]
    limit = np.abs(signal).max()
    ax.imshow(signal, cmap="RdBu_r", vmin=-limit, vmax=limit)
    ax.set(title=f"{n} x {n}: {found.values[0]:.1e} is left", xlabel="pixel", ylabel="pixel")
