"""A monitor as a callback of Lightning's and Hugging Face's trainers, neither of which is needed."""

from __future__ import annotations

import sys
from typing import Any

from spectral_conv.torch._monitor import SpectrumMonitor


def lightning_callback(monitor: SpectrumMonitor) -> Any:
    r"""A callback for Lightning's trainer: a step after each training batch, `close` at the end.

    Parameters
    ----------
    monitor : SpectrumMonitor
        Of the module that is trained, or of a part of it.

    Returns
    -------
    object
        A subclass of ``lightning.pytorch.Callback`` (or ``pytorch_lightning.Callback``) where that is imported, an
        object with the same methods elsewhere.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import SpectrumMonitor, lightning_callback
    >>> monitor = SpectrumMonitor(torch.nn.Conv2d(1, 1, 3), input_shape=(1, 8, 8))
    >>> callback = lightning_callback(monitor)
    >>> callback.on_train_end(None, None)
    """
    return _made("LightningSpectrumMonitor", _Lightning, ("lightning.pytorch", "pytorch_lightning"), "Callback")(
        monitor
    )


def trainer_callback(monitor: SpectrumMonitor) -> Any:
    r"""A callback for Hugging Face's trainer: a step after each optimizer step, `close` at the end.

    Parameters
    ----------
    monitor : SpectrumMonitor
        Of the model that is trained, or of a part of it.

    Returns
    -------
    object
        A subclass of ``transformers.TrainerCallback`` where that is imported, an object with the same methods
        elsewhere.

    Examples
    --------
    >>> import torch
    >>> from spectral_conv.torch import SpectrumMonitor, trainer_callback
    >>> monitor = SpectrumMonitor(torch.nn.Conv2d(1, 1, 3), input_shape=(1, 8, 8))
    >>> callback = trainer_callback(monitor)
    >>> callback.on_train_end(None, None, None)
    """
    return _made("SpectrumMonitorCallback", _Trainer, ("transformers",), "TrainerCallback")(monitor)


class _Adapter:
    def __init__(self, monitor: SpectrumMonitor) -> None:
        super().__init__()
        self.monitor = monitor


class _Lightning(_Adapter):
    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any, **kwargs: Any) -> None:
        self.monitor.step(int(trainer.global_step))

    def on_train_end(self, trainer: Any, module: Any) -> None:
        self.monitor.close()

    def on_exception(self, trainer: Any, module: Any, exception: BaseException) -> None:
        self.monitor.close()


class _Trainer(_Adapter):
    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.monitor.step(int(state.global_step))

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.monitor.close()


def _made(name: str, adapter: type, packages: tuple[str, ...], base: str) -> Any:
    """The adapter, and the trainer's own base class if the trainer is there: whoever has one has imported it."""
    for package in packages:
        if package in sys.modules:
            return type(name, (adapter, getattr(sys.modules[package], base)), {})
    return adapter
