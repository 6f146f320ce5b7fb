"""
Is my network's convolution well conditioned?
=============================================

A convolution layer is a linear map. If it stretches some signals by 10 and leaves a thousandth of others, then so it
does with gradients on their way back, layer after layer. This page takes a trained network from its file to an
answer, and then shows three ways to change the answer.

The network comes with the package: six convolutions that tell handwritten digits apart (99.1 % of the test images).
Put the path of your own model in its place.
"""

# %%
# Read the file
# -------------
# Weights alone do not say how a layer pads or strides. The file ``digits.layers.json`` states it; for your own model
# ``spectral-conv layers FILE > layers.json`` prints one to edit. ONNX and Keras files need none.

from importlib.resources import files

import matplotlib.pyplot as plt
import numpy as np

from spectral_conv import (
    ConvOperator,
    certification,
    descend,
    inspect_model,
    orthogonal,
    read_model,
    regularizers,
    singular_values,
    steps,
)

data = files("spectral_conv") / "data"
model = read_model(data / "digits.safetensors", layers=data / "digits.layers.json")
for layer in model.layers:
    rows, columns = layer.operator.shape
    print(f"{layer.name:18} {rows:5} x {columns:<5} assumed: {layer.assumed or 'nothing'}")

# %%
# Look at the ends of every spectrum
# ----------------------------------
# ``inspect_model`` computes the largest and the smallest singular value of every layer with its own padding and image
# size. On the command line that is ``spectral-conv inspect``.

inspection = inspect_model(model)
table = inspection.to_dataframe()[["sigma_max", "sigma_min"]]
table["condition"] = table["sigma_max"] / table["sigma_min"]
print(table.to_string(float_format="{:.3g}".format))

figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
_ = inspection.plot("extremes", ax=ax)

# %%
# How to read it:
#
# - ``sigma_max`` of 14 means that no signal leaves this layer more than 14 times as long, and one does.
# - ``sigma_min`` of 7e-5 means that one signal all but vanishes in it.
# - The FFT's values, of a layer that wraps around, are near the largest ones and far from the smallest ones. They
#   are no bounds on either side.
#
# Is the answer sure? Each value has an interval, and says what the interval rests on.

dataset = inspection.dataset
for name in dataset["layer"].values:
    row = dataset.sel(layer=name)
    lower, upper = float(row["sigma_min_lower"]), float(row["sigma_min_upper"])
    print(f"{name:18} {lower:.4e} .. {upper:.4e}  {row['sigma_min_basis'].item().split(':')[0]}")

# %%
# Look into the worst layer
# -------------------------
# One tiny value is no disaster: one direction of 1024 is lost. A tail of them is. So look at all values of the
# layer, and at the signal that is lost.

worst = "square.weight"
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
inspection.plot("values", worst, ax=left)
_ = inspection.plot("smallest_input", worst, ax=right)

# %%
# One value in ten is below a hundredth of the largest. The very last ones belong to the border of the image:
# beyond it the layer reads zeros, and the FFT knows nothing of that.

conv = next(layer.operator for layer in model.layers if layer.name == worst)
values = singular_values(conv)
print(f"{np.mean(values < 1e-2 * values[0]):.1%} of the values are below 1 % of the largest")

# %%
# What does it mean for the network?
# ----------------------------------
# The norms multiply: their product bounds by how much the convolutions together can stretch a signal. It is a bound,
# and far from tight, since no signal is stretched most by all layers at once.

chain = certification.network_lipschitz([layer.operator for layer in model.layers])
print(f"together at most {chain.value:.3g}")

# %%
# Remedy 1: clip the norm
# -----------------------
# The nearest kernel whose layer, as it is, has norm 5 at most. It needs no training; but the network is another one
# now, so measure its accuracy again. For a whole file: ``spectral-conv clip``.

clipped = orthogonal.clip(conv, 5.0)
moved = clipped.distance / np.linalg.norm(conv.kernel)
print(f"norm {clipped.norm.value:.4f}; the kernel moved by {moved:.0%}")
print(f"every kernel of norm 5 is at least {1 - clipped.gap:.0%} of that distance away")

# %%
# Remedy 2: a penalty
# -------------------
# Gradient descent on the distance from 2 times an isometry, ``||M^T M - 4 I||_F^2``. In training you add a small
# multiple of the penalty to the loss (``spectral_conv.torch.regularize``); here it acts alone, to show what it
# wants. It draws *all* singular values together, the small ones too.

gap = regularizers.OrthogonalityGap(alpha=4.0)
run = descend(conv, gap, steps.ExactLineSearch(), maxiter=40, circulant_every=None)
last = run.history.isel(iteration=-1)
print(f"largest {float(last['sigma_max']):.3f}, smallest {float(last['sigma_min']):.3f}")
print(f"share of the centre tap: {np.sum(run.kernel[1, 1] ** 2) / np.sum(run.kernel**2):.2%}")

# %%
# The values came together, at a price: nearly all of the kernel is now in its centre tap. Left alone, the penalty
# tends to a 1x1 convolution, because with zero padding no kernel of more taps is orthogonal. In training the loss
# holds against it; take a small weight.

# %%
# Remedy 3: orthogonal from the start
# -----------------------------------
# A BCOP kernel keeps the length of every signal, if the image wraps around. With zero padding its norm stays at 1,
# and some signals at the border are still lost: with zero padding no kernel of more than one tap is orthogonal.

bcop = ConvOperator(orthogonal.sample_bcop(3, 16, 16, rng=0), conv.input_shape)
wrapped = ConvOperator(bcop.kernel, conv.input_shape, padding_mode="circular")

# %%
# Side by side
# ------------

spectra = {
    "as trained": conv,
    "clipped to 5": clipped.operator,
    "after the penalty": conv.with_kernel(run.kernel),
    "BCOP, zero padding": bcop,
    "BCOP, circular padding": wrapped,
}
figure, ax = plt.subplots(figsize=(8, 4.5), layout="constrained")
for name, operator in spectra.items():
    found = singular_values(operator)
    ax.semilogy(np.arange(1, found.size + 1), found, lw=2, label=f"{name}: {found[0]:.3g} to {found[-1]:.2g}")
ax.set(xlabel="number, the largest first", ylabel="singular value", title="One layer, five kernels")
_ = ax.legend(loc="lower left")

# %%
# What to take
# ------------
# ================================  =====================================================================
# the report says                   what to do
# ================================  =====================================================================
# norms far above 1, depth          ``sct.constrain(model, sct.SpectralNorm, ...)`` while training, or
#                                   ``spectral-conv clip`` afterwards; then measure the accuracy again
# a long tail of small values       the orthogonality gap as a penalty, or orthogonal layers
# only a few tiny values            usually nothing; they sit at the border
# a bound of the network is needed  orthogonal or normalized layers, and MaxMin between them
# ================================  =====================================================================
#
# The full report, with all figures of all layers, is one line: ``inspection.to_html("report.html")``.
