"""One declaration a setting: default, range, unit and help.

The engine's checks, the options of the commands, the parameter nodes of the Slicer modules and the tables of the
pages are made from it. Needs no torch: Slicer reads it when it starts.
"""

from __future__ import annotations

import functools
import math
import numbers
from dataclasses import MISSING, dataclass, field, fields
from typing import TYPE_CHECKING, Any

from .errors import InputError, _

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from torch import Tensor


@dataclass(frozen=True)
class Setting:
    """What is declared of one setting.

    kind: float, int, bool or str. low, high: its range, inclusive; NaN and infinity are never allowed. choices: of a
    str. optional: whether it may be None. fitted: whether it may be a 0-d tensor, to be fitted by gradients. panel:
    whether Slicer's panels have it; (low, high) where they allow less than the engine does.
    """

    kind: type
    help: str
    default: Any = MISSING
    low: float = -math.inf
    high: float = math.inf
    unit: str = ""
    choices: Collection[str] = ()
    optional: bool = False
    fitted: bool = False
    panel: bool | tuple[float, float] = True

    @property
    def panel_range(self) -> tuple[float, float]:
        """The lowest and the highest value that Slicer's panels allow."""
        return self.panel if isinstance(self.panel, tuple) else (self.low, self.high)

    def check(self, name: str, value: object) -> None:
        """Compares a value with the declaration.

        Args:
            name: what the sentence calls the setting.
            value: what was given for it.

        Raises:
            InputError: of another kind, out of range or not among the choices.
        """
        if value is None and self.optional:
            return
        if hasattr(value, "requires_grad"):  # a tensor; this file does not know torch
            if not self.fitted or value.ndim or not value.is_floating_point():
                raise InputError(
                    _("{name} must be one number, not a tensor of shape {shape}."), name=name, shape=tuple(value.shape)
                )
            value = value.detach().item()
        if self.kind is bool:
            if not isinstance(value, bool):
                raise InputError(_("{name} must be true or false, but it is {value!r}."), name=name, value=value)
        elif self.kind is str:
            if not isinstance(value, str) or value not in self.choices:
                raise InputError(
                    _("There is no {name} {value!r}; choose one of {names}."),
                    name=name,
                    value=value,
                    names=", ".join(self.choices),
                )
        else:
            self._check_number(name, value)

    def _check_number(self, name: str, value: object) -> None:
        whole = self.kind is int
        if isinstance(value, bool) or not isinstance(value, numbers.Integral if whole else numbers.Real):
            if whole:
                raise InputError(_("{name} must be a whole number, but it is {value!r}."), name=name, value=value)
            raise InputError(_("{name} must be a number, but it is {value!r}."), name=name, value=value)
        if not (math.isfinite(value) and self.low <= value <= self.high):  # NaN too
            shown, low, high = (str(n) if whole else f"{n:g}" for n in (value, self.low, self.high))
            unit = f" {self.unit}" if self.unit else ""
            if math.isfinite(self.high):
                sentence = _("{name} is {value}; choose {low} to {high}{unit}.")
            else:
                sentence = _("{name} is {value}; choose {low} or more{unit}.")
            raise InputError(sentence, name=name, value=shown, low=low, high=high, unit=unit)


def setting(kind: type, default: Any = MISSING, **declared: Any) -> Any:
    """A dataclass field with its declaration; `declared` are the fields of `Setting`."""
    return field(default=default, metadata={"setting": Setting(kind, default=default, **declared)})


@functools.cache
def declared(settings_class: type) -> Mapping[str, Setting]:
    """The declarations of a dataclass by name."""
    return {one.name: one.metadata["setting"] for one in fields(settings_class) if "setting" in one.metadata}


def check_settings(settings: object) -> None:
    """Compares every declared field of a dataclass with its declaration; raises InputError as `Setting.check`."""
    for name, declaration in declared(type(settings)).items():
        declaration.check(name, getattr(settings, name))


@dataclass(frozen=True, kw_only=True)
class ArraySettings:
    """What the probes of every type have."""

    frequency_mhz: float | Tensor = setting(
        float, low=0.5, high=40.0, unit="MHz", help="Centre frequency of the pulse.", fitted=True
    )
    depth_mm: float = setting(float, low=1.0, high=400.0, unit="mm", help="Of the image, from the transducer face.")
    focus_mm: float | Tensor = setting(
        float, low=1.0, high=400.0, unit="mm", help="Depth of the transmit focus.", fitted=True
    )
    f_number: float | Tensor = setting(
        float, 2.0, low=0.3, high=50.0, help="Of the dynamic receive aperture, as far as it reaches.", fitted=True
    )
    transmit_f_number: float | Tensor = setting(
        float, 4.0, low=0.3, high=50.0, help="Of the transmit aperture, as far as it reaches.", fitted=True
    )
    aperture_mm: float | Tensor | None = setting(
        float,
        None,
        low=0.5,
        high=400.0,
        unit="mm",
        help="Largest active aperture; else 64 elements, or the face.",
        optional=True,
        fitted=True,
    )
    cycles: float | Tensor = setting(
        float, 3.0, low=0.25, high=32.0, unit="cycles", help="Pulse length in wavelengths.", fitted=True
    )
    rays: int = setting(int, 192, low=2, high=4096, help="Lines of the polar image.", panel=(16, 1024))
    samples: int = setting(int, 400, low=8, high=16384, help="Of every line.", panel=(32, 4096))
    elevation_layers: int = setting(int, 1, low=1, high=64, help="Planes across the slice thickness.", panel=(1, 15))
    elevation_mm: float = setting(
        float, 3.0, low=0.05, high=50.0, unit="mm", help="Slice thickness: full width at half maximum of the beam."
    )
    elevation_focus_mm: float | Tensor | None = setting(
        float,
        None,
        low=1.0,
        high=400.0,
        unit="mm",
        help="Depth at which the slice is thinnest; else the transmit focus.",
        optional=True,
        fitted=True,
    )
    rays_per_line: int = setting(int, 1, low=1, high=256, help="Sub-rays that fill the gaps of lines.", panel=(1, 32))
    mm_per_pixel: float | None = setting(
        float,
        None,
        low=0.005,
        high=10.0,
        unit="mm",
        help="Of the slice; None gives its longer side 512 pixels.",
        optional=True,
        panel=False,
    )


_FOV = {"low": 1.0, "high": 180.0, "unit": "degrees", "help": "Opening angle of the fan."}


@dataclass(frozen=True)
class ConvexSettings:
    """What only a curved array has."""

    radius_mm: float = setting(float, low=1.0, high=400.0, unit="mm", help="Radius of curvature.")
    fov_deg: float = setting(float, **_FOV)


@dataclass(frozen=True)
class PhasedSettings:
    """What only a phased array has."""

    fov_deg: float = setting(float, **_FOV)


@dataclass(frozen=True)
class LinearSettings:
    """What only a flat array has."""

    width_mm: float = setting(float, low=1.0, high=400.0, unit="mm", help="From the first ray to the last.")


SHAPES = {"convex": ConvexSettings, "linear": LinearSettings, "phased": PhasedSettings}
PROBE: Mapping[str, Setting] = declared(ArraySettings) | {
    name: one for shape in SHAPES.values() for name, one in declared(shape).items()
}


@dataclass(frozen=True)
class SearchBounds:
    """How far from the start a registration looks for the pose."""

    translation_mm: float = setting(float, 25.0, low=1.0, high=200.0, unit="mm", help="How far the start may be off.")
    rotation_deg: float = setting(float, 18.0, low=1.0, high=90.0, unit="degrees", help="The same in degrees.")


SEED = Setting(int, "Of speckle, noise and jitter.", 0, low=0, high=2**63 - 1, panel=(0, 9999))
SEARCH_SEED = Setting(int, "The same seed gives the same result.", 0, low=0, high=2**32 - 1, panel=(0, 9999))
