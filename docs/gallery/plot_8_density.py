"""
Where all singular values lie
=============================

For large layers a histogram of all values can be estimated from applications of the layer alone, with error bars.
Here the layer is small enough to check it against the truth.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, circulant_singular_values, singular_values, spectral_density

conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 6, 6)), input_shape=(14, 14))
density = spectral_density(conv, bins=24, method="lanczos", rng=0)
exact, _ = np.histogram(singular_values(conv), density.edges)
held = np.abs(density.counts - exact) <= density.error + 1e-9
print(f"{held.sum()} of {held.size} bins hold the truth within their error bars")

# %%
# Most values follow the symbol, so that the FFT has the shape right, too (Szegő's theorem). It is the ends that it
# misses.

centres, width = (density.edges[1:] + density.edges[:-1]) / 2, np.diff(density.edges)
fft, _ = np.histogram(circulant_singular_values(conv).ravel(), density.edges)
figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
ax.bar(centres, exact, width, alpha=0.35, label="exact, dense")
ax.errorbar(centres, density.counts, density.error, fmt="o", ms=4, capsize=2, label="spectral_density")
ax.step(density.edges, [*fft, fft[-1]], where="post", color="k", lw=1, label="by FFT, circular")
ax.set(xlabel="singular value", ylabel="how many", title=f"{density.total} values of one layer")
_ = ax.legend()
