"""Jitted loops: no validation, no classes. The only files that import numba."""
