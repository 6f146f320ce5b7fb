"""
The FFT's estimate and the exact norm
=====================================

The largest singular value of the circular layer approaches that of the zero-padded one as the image grows. The error
falls like 1 / N². On small images it is per cents, and of either sign.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, circulant_singular_values, spectral_norm

kernel = np.random.default_rng(0).standard_normal((3, 3, 4, 4))
sizes = np.array([4, 6, 8, 12, 16, 24, 32, 48, 64, 96])
exact = np.array([spectral_norm(ConvOperator(kernel, (n, n))).value for n in sizes])
fft = np.array([circulant_singular_values(ConvOperator(kernel, (n, n))).max() for n in sizes])

# %%
# The zero-padded norms grow towards the supremum of the symbol. The FFT's value samples that symbol at N points per
# axis.

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.semilogx(sizes, exact, "o-", label="exact, zero padding")
left.semilogx(sizes, fft, "s--", label="by FFT, circular")
left.set(xlabel="image size N (pixels per axis)", ylabel="largest singular value", title="One random 3x3x4x4 kernel")
left.legend()
right.loglog(sizes, np.abs(fft / exact - 1), "o", label="|FFT / exact - 1|")
right.loglog(sizes, 4.0 / sizes**2, "k--", lw=1, label="4 / N²")
right.set(xlabel="image size N (pixels per axis)", ylabel="relative error", title="The error falls like 1 / N²")
_ = right.legend()

# %%
# It is no bound: among small random layers the exact norm is sometimes larger.

rng = np.random.default_rng(1)
ratios = []
for _ in range(200):
    conv = ConvOperator(rng.standard_normal((3, 3, 1, 1)), (5, 5))
    ratios.append(circulant_singular_values(conv).max() / spectral_norm(conv).value)
print(f"the FFT is below the exact norm in {np.mean(np.array(ratios) < 1 - 1e-12):.0%} of 200 layers")
figure, ax = plt.subplots(figsize=(7, 3.5), layout="constrained")
ax.hist(ratios, bins=40)
ax.axvline(1, color="k", lw=1)
_ = ax.set(xlabel="FFT's value / exact norm", ylabel="layers", title="200 random 3x3 kernels on 5 x 5 pixels")
