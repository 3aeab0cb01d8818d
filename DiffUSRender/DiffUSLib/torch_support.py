"""PyTorch at the point of use: Slicer does not bundle it, the PyTorch extension brings it."""

from __future__ import annotations

import importlib
import importlib.util
import logging

from .errors import RenderError
from .i18n import _
from .kinds import Device

TORCH_REQUIREMENT = ">=2.2"


def isTorchInstalled() -> bool:
    """Whether torch can be found. Quick: torch itself, which takes seconds to load, is not imported."""
    try:
        return importlib.util.find_spec("torch") is not None
    except (ImportError, ValueError):
        return False


def requireTorch() -> None:
    """Makes torch importable, or raises RenderError that says what to install.

    A torch that imports already is used as it is. Else the PyTorch extension asks the user and installs it.
    """
    try:
        importlib.import_module("torch")
        return
    except ImportError:
        pass
    except OSError as error:
        raise RenderError(
            _("PyTorch is installed but cannot be loaded: reinstall it in the module 'PyTorch Utils'.")
        ) from error
    try:
        pytorchUtils = importlib.import_module("PyTorchUtils")
    except ImportError as error:
        raise RenderError(
            _(
                "PyTorch is not installed: install the 'PyTorch' extension in the Extensions Manager, "
                "restart Slicer and try again."
            )
        ) from error
    try:
        torch = pytorchUtils.PyTorchUtilsLogic().installTorch(
            askConfirmation=True, torchVersionRequirement=TORCH_REQUIREMENT
        )
    except Exception as error:  # whatever the network and pip may raise
        logging.exception("DiffUS: installing PyTorch")
        raise RenderError(
            _("PyTorch could not be installed ({reason}): check the network connection and try again.").format(
                reason=error
            )
        ) from error
    if torch is None:
        raise RenderError(
            _("PyTorch was not installed: open the module 'PyTorch Utils', install version 2.2 or later and try again.")
        )


def torchDevice(device: Device) -> str:
    """torch's name of a device that can compute here; raises RenderError for one that cannot."""
    import torch

    if device is Device.AUTO:
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device is Device.CUDA and not torch.cuda.is_available():
        raise RenderError(_("PyTorch finds no NVIDIA GPU here: choose Automatic or CPU as the device."))
    if device is Device.MPS and not torch.backends.mps.is_available():
        raise RenderError(_("PyTorch finds no Apple GPU here: choose Automatic or CPU as the device."))
    return device.value
