"""The operator is the layer: dense references, adjoints, both fast paths, every geometry."""

from __future__ import annotations

import pickle
import threading
from typing import Any

import numpy as np
import pytest
from cases import naive_matrix, operators, reference_array, reference_cases, reference_operator
from hypothesis import given, settings
from tolerances import ADJOINT, DENSE

from spectral_conv import ConvOperator

CASES = pytest.mark.parametrize("case", reference_cases(), ids=lambda case: case["name"])


def relative(difference: Any, scale: Any) -> float:
    return float(np.abs(difference).max(initial=0.0) / max(np.abs(scale).max(initial=0.0), 1e-300))


def check_products(conv: ConvOperator, M: np.ndarray, tolerance: float) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(conv.shape[1]), rng.standard_normal(conv.shape[0])
    x, y = x.astype(conv.dtype), y.astype(conv.dtype)
    reach = np.abs(M).sum() / max(min(M.shape), 1) + 1e-300
    assert np.abs(conv.matvec(x) - M @ x).max() <= tolerance * reach * 10
    assert np.abs(conv.rmatvec(y) - M.T @ y).max() <= tolerance * reach * 10
    # <y, Mx> = <M^T y, x>, relative to the norms
    gap = abs(np.vdot(y, conv.matvec(x)) - np.vdot(conv.rmatvec(y), x))
    size = np.linalg.norm(x) * np.linalg.norm(y) * (np.linalg.norm(M) + 1e-300)
    assert gap <= ADJOINT[conv.dtype] * size


@CASES
def test_reference_case_has_the_stated_singular_values(case: dict[str, Any]) -> None:
    conv = reference_operator(case)
    assert list(conv.output_shape) == case["output_shape"]
    assert list(conv.shape) == case["matrix_shape"]
    stated = reference_array(f"{case['name']}/singular_values")
    values = np.linalg.svd(conv.to_dense(), compute_uv=False)
    assert relative(values - stated, stated) <= DENSE[conv.dtype]


@CASES
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("fft", [False, True])
def test_reference_case_products_and_adjoint(case: dict[str, Any], dtype: type, fft: bool) -> None:
    conv = reference_operator(case, dtype)
    conv.__dict__["uses_fft"] = fft  # the cached choice of the fast path
    check_products(conv, conv.to_dense(), DENSE[np.dtype(dtype)])


@settings(max_examples=200)
@given(operators())
def test_any_geometry_equals_the_loop_reference(conv: ConvOperator) -> None:
    M = naive_matrix(conv)
    assert M.shape == conv.shape
    np.testing.assert_allclose(conv.to_dense(), M, rtol=0, atol=1e-13)
    for fft in (False, True):
        conv.__dict__["uses_fft"] = fft
        check_products(conv, M, 1e-13)


@settings(max_examples=40)
@given(operators())
def test_groups_are_diagonal_blocks(conv: ConvOperator) -> None:
    M = conv.to_dense()
    row = column = 0
    for part in conv.split_groups():
        block = part.to_dense()
        np.testing.assert_array_equal(M[row : row + part.shape[0], column : column + part.shape[1]], block)
        row, column = row + part.shape[0], column + part.shape[1]
    assert (row, column) == conv.shape


def test_many_channels_take_the_blas_path_and_few_the_loop() -> None:
    rng = np.random.default_rng(3)
    for channels, loop in ((1, True), (2, True), (3, False), (24, False)):
        conv = ConvOperator(rng.standard_normal((3, 3, channels, channels)), (9, 8), stride=(1, 2))
        assert conv.plan().loop is loop
        check_products(conv, conv.to_dense(), 1e-13)


def test_layouts_agree() -> None:
    rng = np.random.default_rng(0)
    hwio = rng.standard_normal((3, 2, 4, 6))
    x = rng.standard_normal(4 * 7 * 8)
    oihw = np.moveaxis(hwio, (3, 2), (0, 1))
    a = ConvOperator(hwio, (7, 8))
    b = ConvOperator(oihw, (7, 8), layout="OIHW")
    np.testing.assert_array_equal(a.kernel, b.kernel)
    np.testing.assert_array_equal(a @ x, b @ x)
    # A transposed layer's HWIO is (*k, in, out), not flipped: the same map as PyTorch's IOHW.
    iohw = np.moveaxis(hwio, (2, 3), (0, 1))
    c = ConvOperator(hwio, (7, 8), transposed=True, stride=2, padding=1)
    d = ConvOperator(iohw, (7, 8), layout="IOHW", transposed=True, stride=2, padding=1)
    np.testing.assert_array_equal(c.kernel, d.kernel)
    assert c.output_shape == (13, 14)
    assert (c.in_channels, c.out_channels) == (4, 6)


def test_a_transposed_layer_is_the_adjoint() -> None:
    K = np.random.default_rng(1).standard_normal((4, 4, 3, 2))
    up = ConvOperator(K, (5, 6), transposed=True, stride=2, padding=1)
    down = ConvOperator(K.swapaxes(-1, -2), up.output_shape, stride=2, padding=1)
    np.testing.assert_array_equal(up.to_dense(), down.to_dense().T)


def test_scipy_protocol() -> None:
    from scipy.sparse.linalg import LinearOperator, aslinearoperator, svds

    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 2, 3)), (6, 5))
    assert isinstance(conv, LinearOperator)
    assert aslinearoperator(conv) is conv
    M = conv.to_dense()
    X = np.random.default_rng(1).standard_normal((conv.shape[1], 3))
    np.testing.assert_allclose(conv @ X, M @ X, atol=1e-12)
    np.testing.assert_allclose(conv.H @ (conv @ X), M.T @ (M @ X), atol=1e-11)
    np.testing.assert_allclose(conv.to_sparse().toarray(), M)
    value = svds(conv, k=1, return_singular_vectors=False, rng=np.random.default_rng(0))[0]
    assert value == pytest.approx(np.linalg.norm(M, 2), rel=1e-9)
    z = X[:, 0] + 1j * X[:, 1]
    np.testing.assert_allclose(conv @ z, M @ z, atol=1e-12)


def test_dtypes_are_kept_promoted_or_refused() -> None:
    import ml_dtypes

    K = np.ones((3, 3, 1, 1))
    assert ConvOperator(K).dtype == np.float64
    assert ConvOperator(K.astype(np.float32)).dtype == np.float32
    for short in (np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn):
        assert ConvOperator(K.astype(short)).dtype == np.float32
    assert ConvOperator(K.astype(np.float32), dtype=np.float64).dtype == np.float64
    conv = ConvOperator(K.astype(np.float32), (4, 4))
    assert conv.matvec(np.ones(16, np.float32)).dtype == np.float32
    # As a float32 matrix would: a float64 vector is not rounded.
    x = np.full(16, 1 + 1e-12)
    np.testing.assert_array_equal(conv.matvec(x), conv.to_dense().astype(np.float64) @ x)


def test_operator_is_immutable_picklable_and_owns_its_weights() -> None:
    K = np.random.default_rng(0).standard_normal((3, 3, 2, 2))
    conv = ConvOperator(K, (5, 5), padding_mode="reflect")
    K[:] = 0
    assert conv.kernel.any()
    with pytest.raises(ValueError, match="read-only"):
        conv.kernel[0] = 1
    with pytest.raises(AttributeError, match="immutable"):
        conv.kernel = K
    x = np.random.default_rng(1).standard_normal(conv.shape[1])
    again = pickle.loads(pickle.dumps(conv))
    np.testing.assert_array_equal(again @ x, conv @ x)
    other = conv.with_kernel(2 * conv.kernel)
    assert other.geometry == conv.geometry
    np.testing.assert_allclose(other @ x, 2 * (conv @ x), atol=1e-13)


def test_matvec_from_many_threads() -> None:
    conv = ConvOperator(np.random.default_rng(0).standard_normal((3, 3, 8, 8)), (16, 16))
    vectors = np.random.default_rng(1).standard_normal((8, conv.shape[1]))
    expected = [conv @ x for x in vectors]
    wrong: list[int] = []

    def work(i: int) -> None:
        for _ in range(20):
            if not np.array_equal(conv @ vectors[i], expected[i]):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"kernel": np.full((3, 3, 1, 1), np.nan)}, r"`kernel` must be finite; got 9 NaN or infinite of 9"),
        ({"kernel": np.array([np.inf, 1.0]).reshape(2, 1, 1), "layout": "WIO"}, r"`kernel` must be finite; got 1"),
        ({"kernel": np.ones((3, 3, 0, 1))}, r"`kernel` must have 1 to 3 spatial axes .* got shape \(3, 3, 0, 1\)"),
        ({"kernel": np.ones((3, 3))}, r"`kernel` must have 1 to 3 spatial axes"),
        ({"kernel": np.ones((3, 3, 1, 1), int)}, r"`kernel` must have a real floating dtype .* got int64"),
        ({"kernel": np.ones((3, 3, 1, 1), complex)}, r"`kernel` must have a real floating dtype .* got complex128"),
        ({"kernel": np.ones((3, 3, 1, 3)), "groups": 2}, r"`groups` must divide `out_channels`; got groups=2 and"),
        ({"groups": 0}, r"`groups` must be an integer of at least 1; got 0"),
        ({"input_shape": (2, 9), "padding": "valid"}, r"`input_shape` plus padding must be at least the extent 3"),
        ({"input_shape": (9,)}, r"`input_shape` must be an int or 2 ints, one per spatial axis; got 1"),
        ({"input_shape": (0, 4)}, r"`input_shape` must be an integer of at least 1; got 0"),
        ({"layout": "HOWI"}, r"`layout` must be 'HWIO' or 'OIHW' for a kernel with 2 spatial axes; got 'HOWI'"),
        ({"layout": "IOHW"}, r"got 'IOHW'\. That is the layout of a transposed layer: pass transposed=True"),
        ({"padding": "smae"}, r"`padding` must be 'same', 'valid', .* got 'smae'\. Did you mean 'same'\?"),
        ({"padding": -1}, r"`padding` must be an integer of at least 0; got -1"),
        ({"padding": (1, 2, 3)}, r"`padding` must have one int or one \(before, after\) pair per spatial axis, 2"),
        ({"padding_mode": "mirror"}, r"`padding_mode` must be one of 'zeros', 'circular', 'reflect', 'replicate'"),
        (
            {"padding": 9, "padding_mode": "reflect"},
            r"`padding` must be at most 7 on axis 0 for padding_mode='refl",
        ),
        ({"padding": 9, "padding_mode": "circular"}, r"`padding` must be at most 8 on axis 0"),
        ({"stride": 1.5}, r"`stride` must be an integer of at least 1; got 1.5"),
        ({"stride": (1, 2, 1)}, r"`stride` must be an int or 2 ints"),
        ({"dilation": True}, r"`dilation` must be an integer of at least 1; got True"),
        ({"output_padding": 1}, r"`output_padding` is for transposed convolutions only"),
        ({"transposed": True, "stride": 2, "output_padding": 2}, r"`output_padding` must be smaller than the stri"),
        ({"transposed": True, "padding_mode": "circular"}, r"`padding_mode` must be 'zeros' for a transposed"),
        ({"transposed": True, "padding": 9}, r"`padding` must leave at least one output pixel"),
        ({"dtype": np.float16}, r"`dtype` must be float32, float64 or None"),
    ],
)
def test_bad_input_names_parameter_requirement_and_remedy(arguments: dict[str, Any], message: str) -> None:
    defaults = {"kernel": np.ones((3, 3, 1, 1)), "input_shape": (8, 8)}
    with pytest.raises(ValueError, match=message):
        ConvOperator(**{**defaults, **arguments})


def test_with_kernel_refuses_another_shape() -> None:
    with pytest.raises(ValueError, match=r"`kernel` must have the shape \(3, 3, 1, 1\); got \(5, 5, 1, 1\)"):
        ConvOperator(np.ones((3, 3, 1, 1))).with_kernel(np.ones((5, 5, 1, 1)))
