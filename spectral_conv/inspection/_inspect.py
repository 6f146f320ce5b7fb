"""A whole model, or many: every convolution's exact extreme singular values beside what the FFT says."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from spectral_conv.geometry import as_integer, checked_word
from spectral_conv.inspection._analysis import Settings
from spectral_conv.inspection._inspection import Inspection
from spectral_conv.inspection._model_file import ModelFile
from spectral_conv.inspection._opened import Costs, OpenedModel, opened_model, unread_model
from spectral_conv.inspection._run import run
from spectral_conv.inspection._store import InspectionStore
from spectral_conv.inspection._workers import Workers, workers_of
from spectral_conv.models import Model
from spectral_conv.models._open import open_model
from spectral_conv.operator import ConvOperator
from spectral_conv.progress import work_bar
from spectral_conv.report.text import printable
from spectral_conv.spectrum.checks import checked_positive

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from distributed import Client


def inspect_model(
    model: Model | str | os.PathLike[str] | Sequence[ConvOperator],
    *,
    input_size: Sequence[int] | None = None,
    layers: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    bounds: bool = False,
    memory_limit: float | None = None,
    time_limit: float | None = None,
    rtol: float = 1e-8,
    certify: bool = False,
    smallest: bool = True,
    executor: Executor | Client | None = None,
    jobs: int | None = None,
    store: str | os.PathLike[str] | None = None,
    progress: bool = False,
) -> Inspection:
    """Largest and smallest singular value of every convolution of a model, in float64.

    Parameters
    ----------
    model : Model, path, torch.nn.Module or sequence of ConvOperator
        What to inspect; a path or a module is read with `spectral_conv.models.read_model`.
    input_size : sequence of int, optional
        ``(channels, *spatial)`` of the model's input.
    layers : path or dict, optional
        A ``layers.json`` with the geometry that the file of weights does not tell.
    bounds : bool
        Every method of `spectral_conv.bounds` beside the exact value: its value, ratio and time.
    memory_limit : float, optional
        Bytes that one layer may take; a layer beyond it is reported with a bracket. Default: half of what is free, or
        of that what falls to one worker.
    time_limit : float, optional
        Seconds that one layer may take; a layer beyond it is stopped and reported with a bracket. It is analysed in a
        worker process, one if `jobs` says nothing else.
    rtol : float
        Wanted error relative to a layer's largest singular value; the smallest value is found to 1e-9 of it
        or better, whatever `rtol`.
    certify : bool
        Prove the bounds, rounding errors included: the basis is then "certified", and takes a factorization more per
        value. See `spectral_conv.spectral_norm`.
    smallest : bool
        Whether the smallest singular value is wanted.
    executor : concurrent.futures.Executor or dask.distributed.Client, optional
        Runs the layers, the costliest first, in one thread per worker; by default they run one after the other here.
    jobs : int, optional
        Run them in so many worker processes of our own, which end with the call. One that dies is replaced. A script
        must then call this below ``if __name__ == "__main__":``.
    store : path, optional
        A folder where each layer's result is kept as soon as it is there, and found again by a later call; see
        `inspect_files`.
    progress : bool
        Show a bar on standard error where that is a terminal.

    Returns
    -------
    Inspection
        Every convolution in the order of the model. A layer that fails, or whose worker died twice, is in it with the
        reason. Where workers have one thread each the values are, bit for bit, those of one thread here.

    Raises
    ------
    ValueError
        The model cannot be read, or a parameter does not fit.
    OSError
        `store` cannot be written; what it holds by then is kept.

    Examples
    --------
    >>> import numpy as np
    >>> from spectral_conv import ConvOperator
    >>> inspection = inspect_model([ConvOperator(np.ones((3, 3, 1, 1)) / 9, (8, 8))])
    >>> report = inspection.reports[0]
    >>> round(report.sigma_max.value, 6), round(report.circulant[0], 6)
    (0.921207, 1.0)
    """
    settings = _settings(rtol, smallest, memory_limit, certify, bounds)
    workers = _workers(executor, jobs, time_limit, settings)
    file = None
    if isinstance(model, str | os.PathLike) and (layers is None or isinstance(layers, str | os.PathLike)):
        file = ModelFile.at(model, layers=layers, input_size=input_size)
    opened = opened_model(
        partial(open_model, model, input_size=input_size, layers=layers),
        settings,
        file=file,
        handed_over=workers is None,
        held=True,
        costs=None if workers is None else {},
        input_size=None if input_size is None else tuple(int(n) for n in input_size),
    )
    kept = None if store is None else InspectionStore(store)
    with work_bar(len(opened), printable(opened.inspection.model), wanted=progress) as step:
        (found,) = run([opened], step, workers=workers, store=kept, time_limit=time_limit)
    return found


def inspect_files(
    paths: Iterable[str | os.PathLike[str]],
    *,
    input_size: Sequence[int] | None = None,
    layers: str | os.PathLike[str] | None = None,
    fold_batchnorm: bool = False,
    select: str | None = None,
    bounds: bool = False,
    memory_limit: float | None = None,
    time_limit: float | None = None,
    rtol: float = 1e-8,
    certify: bool = False,
    smallest: bool = True,
    executor: Executor | Client | None = None,
    jobs: int | None = None,
    store: str | os.PathLike[str] | None = None,
    on_failure: str = "raise",
    progress: bool = False,
) -> Iterator[Inspection]:
    """Inspect model files, as `inspect_model` does each, with one set of workers for the layers of all.

    This process holds the weights of one file at a time, and workers read those that they need.

    Parameters
    ----------
    paths : iterable of path
        The files; workers must find them under the same paths.
    input_size, layers, fold_batchnorm
        As in `spectral_conv.models.read_model`, for all files.
    select : str, optional
        Only layers whose name has this part or, with one of ``*?[``, matches this glob.
    bounds, memory_limit, time_limit, rtol, certify, smallest, executor, jobs
        As in `inspect_model`.
    store : path, optional
        A Zarr folder, which must be new, empty or such a store. Each worker writes the result of each layer into it,
        whole or not at all, under a digest of kernel, geometry, settings and version. What is there is not computed
        again: not in a later call, whatever ended this one, and not for equal layers of several files. When a model
        is done, its table becomes a group, for ``xarray.open_zarr(store / group)``; after the last one
        ``xarray.open_datatree(store, engine="zarr")`` finds all.
    on_failure : str
        "raise": all files are opened before the first is analysed, and one that cannot be read raises. "return":
        files are opened as workers need them, and one that cannot be read gives an Inspection with no layers and a
        `failure`.
    progress : bool
        Show a bar on standard error where that is a terminal: over the layers, or with ``on_failure="return"`` the
        files.

    Returns
    -------
    iterator of Inspection
        In the order of `paths`, each as soon as it and those before it are done. Work goes on while it is read.

    Raises
    ------
    ValueError
        A file cannot be read, no layer matches, or a parameter does not fit.
    OSError
        `store` cannot be written; what it holds by then is kept.

    Examples
    --------
    >>> from importlib.resources import files
    >>> data = files("spectral_conv") / "data"
    >>> found = inspect_files([data / "digits.safetensors"], layers=data / "digits.layers.json", select="d*")
    >>> [len(inspection.reports) for inspection in found]
    [3]
    """
    if isinstance(paths, str | os.PathLike):
        raise ValueError(f"`paths` must be several; got {os.fspath(paths)!r}. Give [path], or use inspect_model.")
    settings = _settings(rtol, smallest, memory_limit, certify, bounds)
    lenient = checked_word("on_failure", on_failure, ("raise", "return")) == "return"
    workers = _workers(executor, jobs, time_limit, settings)
    files = [
        ModelFile.at(path, layers=layers, input_size=input_size, fold_batchnorm=fold_batchnorm, select=select)
        for path in paths
    ]
    costs: Costs | None = None if workers is None else {}
    single = len(files) == 1

    def opened(file: ModelFile) -> OpenedModel:
        try:
            return opened_model(
                file.open,
                settings,
                file=file,
                handed_over=workers is None and (lenient or single),
                held=single,
                costs=costs,
                input_size=file.input_size,
            )
        except (ValueError, OSError) as error:
            if not lenient:
                raise
            return unread_model(file, settings, str(error))

    known = None if lenient else [opened(file) for file in files]
    kept = None if store is None else InspectionStore(store)
    work = partial(run, workers=workers, store=kept, time_limit=time_limit)
    if known is None:
        return _with_bar(map(opened, files), len(files), "files", work, progress)
    return _with_bar(known, sum(map(len, known)), "layers", work, progress)


def _with_bar(
    models: Iterable[OpenedModel],
    total: int,
    what: str,
    run: Callable[[Iterable[OpenedModel], Callable[[], None]], Iterator[Inspection]],
    progress: bool,
) -> Iterator[Inspection]:
    """Move the bar on by each layer, or by each file."""
    with work_bar(total, what, wanted=progress) as step:
        if what == "layers":
            yield from run(models, step)
            return
        for inspection in run(models, lambda: None):
            step()
            yield inspection


def _settings(rtol: float, smallest: bool, memory_limit: float | None, certify: bool, bounds: bool) -> Settings:
    if not 0.0 < rtol < 1.0:
        raise ValueError(f"`rtol` must lie between 0 and 1; got {rtol!r}. The default is 1e-8.")
    return Settings(
        rtol=float(rtol),
        smallest=bool(smallest),
        memory_limit=memory_limit,
        certify=bool(certify),
        bounds=bool(bounds),
    )


def _workers(executor: Any, jobs: int | None, time_limit: float | None, settings: Settings) -> Workers | None:
    if jobs is not None:
        as_integer("jobs", jobs, minimum=1)
    if time_limit is not None:
        checked_positive("time_limit", time_limit)
    return workers_of(executor, jobs, time_limit=time_limit, settings=settings)
