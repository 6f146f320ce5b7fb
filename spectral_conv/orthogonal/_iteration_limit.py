"""What an iteration of this folder raises when it stops early."""

from __future__ import annotations

from typing import Any

from spectral_conv.results import NotConvergedError


class IterationLimitError(NotConvergedError):
    """An iteration used up `maxiter`; `result` carries the best that was reached.

    Attributes
    ----------
    result : object
        What the function returns with ``on_failure="return"``.
    """

    def __init__(self, message: str, result: Any) -> None:
        RuntimeError.__init__(self, message)
        self.result = result

    def __reduce__(self) -> Any:
        return type(self), (str(self), self.result)
