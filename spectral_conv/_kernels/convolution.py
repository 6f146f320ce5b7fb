"""The convolution as products of kernel taps with shifted views of one padded copy of the input.

Notation: `x` is ``(in, N1, N2, N3)``, `y` is ``(out, R1, R2, R3)`` (fewer axes have leading ones). `source1..3` say
which input pixel stands at each (plane, position) of an axis of the padded copy, -1 for none. The copy of one
group has one row per (plane, channel); tap `t` of the group is then the product of ``taps[group, t]``, of shape
``(m, h)``, with the `m` rows from ``row[t]`` on, shifted by the constant ``shift[t]``: no index arithmetic inside.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from spectral_conv._kernels.blas import JIT, dgemm, sgemm


@njit(cache=True, nogil=True)
def pad(x, source1, source2, source3, copy):
    """Fill the padded `copy` ``(planes * channels, Q1 * Q2 * Q3)`` of one group's input."""
    channels = x.shape[0]
    (planes1, Q1), (planes2, Q2), (planes3, Q3) = source1.shape, source2.shape, source3.shape
    row = 0
    for p1 in range(planes1):
        for p2 in range(planes2):
            for p3 in range(planes3):
                for c in range(channels):
                    for q1 in range(Q1):
                        n1 = source1[p1, q1]
                        for q2 in range(Q2):
                            n2 = source2[p2, q2]
                            start = (q1 * Q2 + q2) * Q3
                            line = copy[row, start : start + Q3]
                            if n1 < 0 or n2 < 0:
                                line[:] = 0
                                continue
                            pixels = x[c, n1, n2]
                            for q3 in range(Q3):
                                n3 = source3[p3, q3]
                                line[q3] = pixels[n3] if n3 >= 0 else 0
                    row += 1


@njit(cache=True, nogil=True)
def unpad(copy, source1, source2, source3, x):
    """Adjoint of `pad`: add every padded position of `copy` to the pixel of `x` that it came from."""
    channels = x.shape[0]
    (planes1, Q1), (planes2, Q2), (planes3, Q3) = source1.shape, source2.shape, source3.shape
    row = 0
    for p1 in range(planes1):
        for p2 in range(planes2):
            for p3 in range(planes3):
                for c in range(channels):
                    for q1 in range(Q1):
                        n1 = source1[p1, q1]
                        for q2 in range(Q2):
                            n2 = source2[p2, q2]
                            if n1 < 0 or n2 < 0:
                                continue
                            start = (q1 * Q2 + q2) * Q3
                            line = copy[row, start : start + Q3]
                            pixels = x[c, n1, n2]
                            for q3 in range(Q3):
                                n3 = source3[p3, q3]
                                if n3 >= 0:
                                    pixels[n3] += line[q3]
                    row += 1


@njit(cache=True, nogil=True)
def crop(wide, Q2, Q3, y):
    """Copy the valid positions of `wide` ``(h, L)``, laid out with row lengths `Q2` and `Q3`, to `y`."""
    for o in range(y.shape[0]):
        for r1 in range(y.shape[1]):
            for r2 in range(y.shape[2]):
                start = (r1 * Q2 + r2) * Q3
                y[o, r1, r2, :] = wide[o, start : start + y.shape[3]]


@njit(cache=True, nogil=True)
def spread(y, Q2, Q3, wide):
    """Adjoint of `crop`: the positions between the valid ones become zero."""
    wide[:] = 0
    for o in range(y.shape[0]):
        for r1 in range(y.shape[1]):
            for r2 in range(y.shape[2]):
                start = (r1 * Q2 + r2) * Q3
                wide[o, start : start + y.shape[3]] = y[o, r1, r2, :]


def _tap_product(tap, copy, row, shift, wide, fresh):
    length = wide.shape[1]
    product = tap.T @ copy[row : row + tap.shape[0], shift : shift + length]
    wide[:] = product if fresh else wide + product


def _tap_product_adjoint(tap, wide, row, shift, copy):
    copy[row : row + tap.shape[0], shift : shift + wide.shape[1]] += tap @ wide


if JIT:

    @njit(cache=True, nogil=True)
    def _gemm(letters, size, alpha, a, b, beta, c):
        """Column-major ``c = alpha op(a) op(b) + beta c``; `size` holds m, n, k and the three leading dimensions."""
        transa, transb, m, n, k = (
            letters.ctypes,
            letters[1:].ctypes,
            size.ctypes,
            size[1:].ctypes,
            size[2:].ctypes,
        )
        lda, ldb, ldc = size[3:].ctypes, size[4:].ctypes, size[5:].ctypes
        factor = np.array([alpha, beta], dtype=c.dtype)
        one, two = factor.ctypes, factor[1:].ctypes
        if c.itemsize == 8:
            dgemm(transa, transb, m, n, k, one, a.ctypes, lda, b.ctypes, ldb, two, c.ctypes, ldc)
        else:
            sgemm(transa, transb, m, n, k, one, a.ctypes, lda, b.ctypes, ldb, two, c.ctypes, ldc)

    # A row-major (h, L) array is BLAS's column-major (L, h): wide^T (+)= copy^T tap.
    @njit(cache=True, nogil=True)
    def _tap_product(tap, copy, row, shift, wide, fresh):
        m, h = tap.shape
        length = wide.shape[1]
        size = np.array([length, h, m, copy.shape[1], h, length], dtype=np.int32)
        letters = np.array([78, 84], dtype=np.uint8)  # "N", "T"
        _gemm(letters, size, 1.0, copy[row, shift:], tap, 0.0 if fresh else 1.0, wide)

    # copy^T += wide^T tap^T
    @njit(cache=True, nogil=True)
    def _tap_product_adjoint(tap, wide, row, shift, copy):
        m, h = tap.shape
        length = wide.shape[1]
        size = np.array([length, m, h, length, h, copy.shape[1]], dtype=np.int32)
        letters = np.array([78, 78], dtype=np.uint8)
        _gemm(letters, size, 1.0, wide, tap, 1.0, copy[row, shift:])


@njit(cache=True, nogil=True)
def _loop_product(taps, copy, row, shift, wide):
    """All taps of a group with few channels: four taps per pass over a piece of `wide` that stays in cache."""
    count, m, h = taps.shape
    for start in range(0, wide.shape[1], 1024):
        n = min(1024, wide.shape[1] - start)
        for o in range(h):
            y = wide[o, start : start + n]
            y[:] = 0
            for c in range(m):
                t = 0
                while t + 4 <= count:
                    x0 = copy[row[t] + c, shift[t] + start :]
                    x1 = copy[row[t + 1] + c, shift[t + 1] + start :]
                    x2 = copy[row[t + 2] + c, shift[t + 2] + start :]
                    x3 = copy[row[t + 3] + c, shift[t + 3] + start :]
                    k0, k1, k2, k3 = taps[t, c, o], taps[t + 1, c, o], taps[t + 2, c, o], taps[t + 3, c, o]
                    for i in range(n):
                        y[i] += k0 * x0[i] + k1 * x1[i] + k2 * x2[i] + k3 * x3[i]
                    t += 4
                while t < count:
                    x0 = copy[row[t] + c, shift[t] + start :]
                    k0 = taps[t, c, o]
                    for i in range(n):
                        y[i] += k0 * x0[i]
                    t += 1


@njit(cache=True, nogil=True)
def _loop_product_adjoint(taps, wide, row, shift, copy):
    count, m, h = taps.shape
    for start in range(0, wide.shape[1], 1024):
        n = min(1024, wide.shape[1] - start)
        for t in range(count):
            for c in range(m):
                x = copy[row[t] + c, shift[t] + start :]
                for o in range(h):
                    y = wide[o, start : start + n]
                    k = taps[t, c, o]
                    for i in range(n):
                        x[i] += k * y[i]


@njit(cache=True, nogil=True)
def forward(x, taps, row, shift, source1, source2, source3, loop, y):
    """``y = M x`` for ``taps (groups, T, m, h)``; `loop` chooses loops over BLAS products."""
    groups, count, _, h = taps.shape
    g = x.shape[0] // groups
    Q2, Q3 = source2.shape[1], source3.shape[1]
    planes = source1.shape[0] * source2.shape[0] * source3.shape[0]
    copy = np.empty((planes * g, source1.shape[1] * Q2 * Q3), dtype=x.dtype)
    length = ((y.shape[1] - 1) * Q2 + y.shape[2] - 1) * Q3 + y.shape[3]
    compact = length == y.shape[1] * y.shape[2] * y.shape[3]
    for group in range(groups):
        part = y[group * h : (group + 1) * h]
        pad(x[group * g : (group + 1) * g], source1, source2, source3, copy)
        wide = part.reshape(h, length) if compact else np.empty((h, length), dtype=x.dtype)
        if loop:
            _loop_product(taps[group], copy, row, shift, wide)
        else:
            for t in range(count):
                _tap_product(taps[group, t], copy, row[t], shift[t], wide, t == 0)
        if not compact:
            crop(wide, Q2, Q3, part)


@njit(cache=True, nogil=True)
def adjoint(y, taps, row, shift, source1, source2, source3, loop, x):
    """``x = M^T y``; arguments as in `forward`."""
    groups, count, _, h = taps.shape
    g = x.shape[0] // groups
    Q2, Q3 = source2.shape[1], source3.shape[1]
    planes = source1.shape[0] * source2.shape[0] * source3.shape[0]
    copy = np.empty((planes * g, source1.shape[1] * Q2 * Q3), dtype=y.dtype)
    length = ((y.shape[1] - 1) * Q2 + y.shape[2] - 1) * Q3 + y.shape[3]
    compact = length == y.shape[1] * y.shape[2] * y.shape[3]
    x[:] = 0
    for group in range(groups):
        part = y[group * h : (group + 1) * h]
        if compact:
            wide = part.reshape(h, length)
        else:
            wide = np.empty((h, length), dtype=y.dtype)
            spread(part, Q2, Q3, wide)
        copy[:] = 0
        if loop:
            _loop_product_adjoint(taps[group], wide, row, shift, copy)
        else:
            for t in range(count):
                _tap_product_adjoint(taps[group, t], wide, row[t], shift[t], copy)
        unpad(copy, source1, source2, source3, x[group * g : (group + 1) * g])


def _project_out(basis, block, coefficients):
    product = basis @ block.T
    block -= product.T @ basis
    coefficients += product


if JIT:

    @njit(cache=True, nogil=True)
    def _project_out(basis, block, coefficients):
        """``block -= (basis block^T)^T basis`` for orthonormal rows `basis`; add the products to `coefficients`."""
        j, n = basis.shape
        b = block.shape[0]
        product = np.empty((j, b))
        size = np.array([b, j, n, n, n, b], dtype=np.int32)
        _gemm(np.array([84, 78], dtype=np.uint8), size, 1.0, block, basis, 0.0, product)
        size = np.array([n, b, j, n, b, n], dtype=np.int32)
        _gemm(np.array([78, 84], dtype=np.uint8), size, -1.0, basis, product, 1.0, block)
        coefficients += product


@njit(cache=True, nogil=True)
def _noise(state, x):
    """Fill `x` with pseudo-random numbers; `state` ``(1,)`` int64 goes on to the next ones."""
    for i in range(x.size):
        state[0] = (state[0] * 1103515245 + 12345) % 2147483648
        x[i] = state[0] / 1073741824.0 - 1.0


@njit(cache=True, nogil=True)
def orthonormalize(basis, block, state, coefficients, triangle):
    """Orthonormalize the rows of `block` against `basis` and each other, twice.

    On return ``old block = coefficients^T basis + triangle^T block``. A row that vanishes is replaced by a random
    one, treated likewise, with a zero on the diagonal of `triangle`: an invariant subspace does not end the search.
    """
    b = block.shape[0]
    coefficients[:] = 0.0
    triangle[:] = 0.0
    before = np.empty(b)
    for i in range(b):
        before[i] = np.linalg.norm(block[i])
    for _ in range(2):
        if basis.shape[0] > 0:
            _project_out(basis, block, coefficients)
    ignored = np.empty((basis.shape[0], 1))
    for i in range(b):
        for _ in range(2):
            for other in range(i):
                r = np.dot(block[other], block[i])
                triangle[other, i] += r
                block[i] -= r * block[other]
        norm = np.linalg.norm(block[i])
        if norm > 1e-14 * before[i]:
            triangle[i, i] = norm
            block[i] /= norm
            # What cancellation left is orthogonal only after one more pass; the change is below rounding.
            passes = 1 if norm < 1e-3 * before[i] else 0
        else:
            _noise(state, block[i])
            passes = 3
        for _ in range(passes):
            if basis.shape[0] > 0:
                _project_out(basis, block[i : i + 1], ignored)
            for other in range(i):
                block[i] -= np.dot(block[other], block[i]) * block[other]
            block[i] /= np.linalg.norm(block[i])


@njit(cache=True, nogil=True)
def extend_bidiagonalization(
    taps, row, shift, source1, source2, source3, loop, flip, x_shape, y_shape, right, left, projected, coupling,
    state, start, stop,
):  # fmt: skip
    """Block Golub-Kahan-Lanczos from row `start` to `stop` with full reorthogonalization.

    Rows of `right` and `left` are the bases V and U; `projected` is ``U M V^T``. On entry the block of rows from
    `start` on stands in `right`; on return ``M^T U^T = V^T projected^T`` plus `coupling` times the block of rows
    from `stop` on, for the last block of U only. With `flip` the roles of M and M^T are exchanged.
    """
    b = coupling.shape[0]
    triangle = np.empty((b, b))
    for j in range(start, stop, b):
        for i in range(j, j + b):
            x, y = right[i], left[i]
            if flip:
                adjoint(x.reshape(y_shape), taps, row, shift, source1, source2, source3, loop, y.reshape(x_shape))
            else:
                forward(x.reshape(x_shape), taps, row, shift, source1, source2, source3, loop, y.reshape(y_shape))
        coefficients = np.empty((j, b))
        orthonormalize(left[:j], left[j : j + b], state, coefficients, triangle)
        projected[:j, j : j + b] = coefficients
        projected[j : j + b, j : j + b] = triangle
        for i in range(j, j + b):
            y, x = left[i], right[i + b]
            if flip:
                forward(y.reshape(x_shape), taps, row, shift, source1, source2, source3, loop, x.reshape(y_shape))
            else:
                adjoint(y.reshape(y_shape), taps, row, shift, source1, source2, source3, loop, x.reshape(x_shape))
        coefficients = np.empty((j + b, b))
        orthonormalize(right[: j + b], right[j + b : j + 2 * b], state, coefficients, coupling)
