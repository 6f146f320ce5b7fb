"""
Families of 1-Lipschitz convolutions
====================================

BCOP, RKO, OSSN and SVCM of Li and others (2019), all with norm 1 at most. Only BCOP keeps the length of every
signal, and only where the image wraps around.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, circulant_singular_values, orthogonal, singular_values

size, rng = (8, 8), np.random.default_rng(0)
start = ConvOperator(rng.standard_normal((3, 3, 8, 8)) / 8, size, padding_mode="circular")
kernels = {
    "BCOP": orthogonal.sample_bcop(3, 8, 8, rng=0),
    "RKO": orthogonal.rko(start.kernel),
    "OSSN": orthogonal.ossn(start),
    "SVCM": orthogonal.svcm(start, lower=0.0, upper=1.0).kernel,
}

figure, axes = plt.subplots(1, 2, figsize=(10, 4), layout="constrained", sharey=True)
for name, kernel in kernels.items():
    circular = np.sort(circulant_singular_values(ConvOperator(kernel, size)).ravel())[::-1]
    zeros = singular_values(ConvOperator(kernel, size))
    print(
        f"{name:5} circular {circular[-1]:.3f} to {circular[0]:.3f}, zero padding {zeros[-1]:.4f} to {zeros[0]:.3f}"
    )
    axes[0].plot(np.arange(1, circular.size + 1), circular, lw=2, label=name)
    axes[1].plot(np.arange(1, zeros.size + 1), zeros, lw=2, label=name)
axes[0].set(title="circular padding", xlabel="number, the largest first", ylabel="singular value")
axes[1].set(title="zero padding", xlabel="number, the largest first")
_ = axes[0].legend(loc="lower left")

# %%
# With zero padding the values that belong to the border drop. No kernel of more than one tap can have all of them
# at 1.
