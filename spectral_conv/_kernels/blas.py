"""BLAS and LAPACK for jitted loops, by address, from SciPy's own copies.

Each routine is an external function that jitted code calls with pointers (a ctypes global would switch the
on-disk cache off). Where the JIT is off, each caller uses a NumPy twin of one line.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
from numba import config, types
from scipy.linalg import cython_blas, cython_lapack

JIT = not config.DISABLE_JIT


def _external(module: Any, name: str, arguments: int) -> types.ExternalFunction:
    """Make LAPACK's `name`, all of whose `arguments` are pointers, known to the linker of the JIT."""
    capsule = module.__pyx_capi__[name]
    get_name = ctypes.pythonapi.PyCapsule_GetName
    get_name.restype, get_name.argtypes = ctypes.c_char_p, [ctypes.py_object]
    get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
    get_pointer.restype, get_pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    symbol = f"spectral_conv_{name}"
    llvm.add_symbol(symbol, get_pointer(capsule, get_name(capsule)))
    return types.ExternalFunction(symbol, types.void(*[types.voidptr] * arguments))


dgemm = _external(cython_blas, "dgemm", 13)
sgemm = _external(cython_blas, "sgemm", 13)
dsyrk = _external(cython_blas, "dsyrk", 10)
ssyrk = _external(cython_blas, "ssyrk", 10)
dtrsm = _external(cython_blas, "dtrsm", 11)
strsm = _external(cython_blas, "strsm", 11)
dlasq1 = _external(cython_lapack, "dlasq1", 5)
dpbtrf = _external(cython_lapack, "dpbtrf", 6)
spbtrf = _external(cython_lapack, "spbtrf", 6)
dpotrf = _external(cython_lapack, "dpotrf", 5)
spotrf = _external(cython_lapack, "spotrf", 5)
zgesdd = _external(cython_lapack, "zgesdd", 15)
cherk = _external(cython_blas, "cherk", 10)
zherk = _external(cython_blas, "zherk", 10)
cpotrf = _external(cython_lapack, "cpotrf", 5)
zpotrf = _external(cython_lapack, "zpotrf", 5)
cpotri = _external(cython_lapack, "cpotri", 5)
