"""Find the cases and run them."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import ModuleType

from threadpoolctl import threadpool_limits

from validation.checks.check import Check, Verdict
from validation.checks.picture import Picture


@dataclass(frozen=True, kw_only=True)
class Case:
    """Some claims that belong together, usually one figure or theorem of a paper.

    Attributes
    ----------
    name : str
        The word for it on the command line.
    title, about : str
        First line and rest of its module's docstring.
    run : callable
        Returns the checks; ``full=True`` takes more layers, sizes and random kernels, where it knows that.
    """

    name: str
    title: str
    about: str
    run: Callable[..., list[Check]]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of a case.

    Attributes
    ----------
    case : Case
        Which.
    checks : tuple of Check
        None of them where the case broke off.
    seconds : float
        How long it took.
    error : str
        Why it broke off; empty where it did not.
    """

    case: Case
    checks: tuple[Check, ...]
    seconds: float
    error: str = ""

    def count(self, verdict: Verdict) -> int:
        """Return how many checks have a verdict; a case that broke off counts as one failure."""
        broken = int(bool(self.error)) if verdict == "fail" else 0
        return broken + sum(check.verdict == verdict for check in self.checks)

    @property
    def pictures(self) -> list[tuple[Picture, list[Check]]]:
        """Every figure with the checks that it shows."""
        shown: dict[int, tuple[Picture, list[Check]]] = {}
        for check in self.checks:
            if check.picture is not None:
                shown.setdefault(id(check.picture), (check.picture, []))[1].append(check)
        return list(shown.values())


def find_cases() -> list[Case]:
    """Every module of `validation.cases`, by name."""
    import validation.cases

    names = sorted(module.name for module in pkgutil.iter_modules(validation.cases.__path__))
    return [case_of(importlib.import_module(f"validation.cases.{name}")) for name in names]


def case_of(module: ModuleType) -> Case:
    """Return the case that a module is."""
    title, _, about = inspect.cleandoc(module.__doc__ or "").partition("\n")
    return Case(
        name=module.__name__.rpartition(".")[2],
        title=title.rstrip("."),
        about=" ".join(about.split()),
        run=module.run,
    )


def run_cases(cases: Sequence[Case], *, full: bool = False) -> Iterator[Outcome]:
    """Run one case after the other; a line for each on standard error."""
    for number, case in enumerate(cases, 1):
        print(f"[{number}/{len(cases)}] {case.title} ...", end=" ", flush=True, file=sys.stderr)
        outcome = run_case(case, full=full)
        print(f"{outcome.seconds:.1f} s", file=sys.stderr)
        yield outcome


def run_case(case: Case, *, full: bool = False) -> Outcome:
    """Run a case on one thread of BLAS; what breaks it off is its failure, and the others go on."""
    options = {"full": full} if "full" in inspect.signature(case.run).parameters else {}
    start = time.perf_counter()
    checks, error = (), ""
    try:
        with threadpool_limits(1):
            checks = tuple(case.run(**options))
    except Exception as reason:
        traceback.print_exc()
        error = f"{type(reason).__name__}: {reason}"
    return Outcome(case=case, checks=checks, seconds=time.perf_counter() - start, error=error)
