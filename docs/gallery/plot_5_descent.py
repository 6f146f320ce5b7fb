"""
Descent with a penalty
======================

Gradient descent on the orthogonality gap of Guo's Frobenius norm paper: once with its step sizes, once with exact
line search. The exact spectrum of every iteration is recorded.
"""

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import ConvOperator, descend, plot_circulant, plot_descent, regularizers, steps

conv = ConvOperator(np.random.default_rng(1).standard_normal((3, 3, 3, 1)), input_shape=(20, 20))
gap = regularizers.OrthogonalityGap(alpha=1.0)

# The paper's step sizes, 1e-5, 1e-4 and 1e-3, are meant for half of the gradient.
paper = descend(conv, gap, steps.Schedule({1: 5e-6, 10: 5e-5, 20: 5e-4}), maxiter=60)
exact = descend(conv, gap, steps.ExactLineSearch(), maxiter=60, circulant_every=1)
for name, run in (("paper", paper), ("exact", exact)):
    last = run.history.isel(iteration=-1)
    smallest, largest = float(last["sigma_min"]), float(last["sigma_max"])
    print(f"{name}: penalty {float(last['penalty']):.3f}, values {smallest:.3f} to {largest:.3f}")

runs = {"steps of the paper": paper.history, "exact line search": exact.history}
_ = plot_descent(runs, figure=plt.figure(figsize=(11, 5.5), layout="constrained"))

# %%
# The circulant spectrum over the same iterations.

figure, ax = plt.subplots(figsize=(8, 4), layout="constrained")
_ = plot_circulant(exact.history, ax=ax)
