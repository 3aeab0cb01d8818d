"""How a frame is rendered: every choice that belongs neither to the medium nor to the probe."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

from torch import Tensor

from ..errors import InputError
from .echo import ECHO_MODELS
from .scatter import require_seed

_RANGES = {
    "reflection_db": (-40.0, 120.0),
    "specular_exponent": (0.0, 64.0),
    "noise_db": (-160.0, 40.0),
    "tgc_db_per_cm": (0.0, 40.0),
    "gain_db": (-120.0, 120.0),
    "dynamic_range_db": (1.0, 160.0),
    "start_depth_mm": (0.0, 400.0),
    "grain_mm": (0.005, 10.0),
}
_MAY_BE_NONE = ("noise_db", "tgc_db_per_cm", "grain_mm")
_MAY_BE_TENSOR = ("reflection_db", "specular_exponent", "noise_db", "tgc_db_per_cm", "gain_db", "dynamic_range_db")
COMPRESSIONS = ("log", "linear")
_SWITCHES = ("attenuation", "speckle", "psf")


@dataclass(frozen=True, kw_only=True)
class PaperArtefacts:
    """The image-space artefacts of the DiffUS paper; the fields are those of `image.artefacts`."""

    radial_std: float | Tensor = 0.1
    radial_power: float | Tensor = 2.0
    local_std: float | Tensor = 0.02
    local_power: float | Tensor = 1.5
    blur_sigma_mm: float | Tensor = 0.3
    blur_growth: float | Tensor = 0.01


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """Settings of a frame; those that gradients may fit (gain, TGC, range, noise, reflection, lobe) may be 0-d tensors.

    echo: `layered` (the paper's), `transmission` or `reverberation`.
    attenuation: whether tissue attenuates, a f^b dB/cm.
    speckle: whether tissue scatters (world-locked noise times the medium's scattering).
    psf: whether the pulse and the beam blur the echo.
    reflection_db: level of a sharp boundary with R = 1 above fully developed white-matter speckle.
    specular_exponent: m of the lobe |n.d|^m on boundaries met at an angle; 0 switches it off.
    noise_db: electronic noise below white-matter speckle at the face, None for none.
    tgc_db_per_cm: time gain compensation, two-way; None compensates 0.6 dB/(cm MHz).
    gain_db, dynamic_range_db: of the display. compression: `log` or `linear`.
    start_depth_mm: everything nearer is coupling (skull that has been opened).
    grain_mm: of the scatterers; None takes half the pulse length.
    seed: of speckle, noise and jitter. artefacts: the paper's image-space artefacts, or None.

    Raises InputError for a value out of range.
    """

    echo: str = "transmission"
    attenuation: bool = True
    speckle: bool = True
    psf: bool = True
    reflection_db: float | Tensor = 57.0
    specular_exponent: float | Tensor = 0.0
    noise_db: float | Tensor | None = -65.0
    tgc_db_per_cm: float | Tensor | None = None
    gain_db: float | Tensor = 0.0
    dynamic_range_db: float | Tensor = 60.0
    compression: str = "log"
    start_depth_mm: float = 0.0
    grain_mm: float | None = None
    seed: int = 0
    artefacts: PaperArtefacts | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            if field.name in _RANGES:
                _require_in_range(field.name, getattr(self, field.name))
        for name in _SWITCHES:
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name} must be true or false, but it is {getattr(self, name)!r}.")
        require_seed(self.seed)
        if self.artefacts is not None and not isinstance(self.artefacts, PaperArtefacts):
            raise InputError(f"artefacts must be None or PaperArtefacts, but they are {self.artefacts!r}.")
        if not isinstance(self.echo, str) or self.echo not in ECHO_MODELS:
            raise InputError(f"There is no echo model {self.echo!r}; choose one of {', '.join(ECHO_MODELS)}.")
        if self.compression not in COMPRESSIONS:
            raise InputError(f"There is no compression {self.compression!r}; choose one of {', '.join(COMPRESSIONS)}.")

    def replace(self, **changes: object) -> RenderSettings:
        """The same settings with some changed."""
        return replace(self, **changes)


def settings_to_dict(settings: RenderSettings) -> dict[str, object]:
    """The settings as plain numbers by name, for a file; without the paper's artefacts, which no file holds."""
    named = {field.name: getattr(settings, field.name) for field in fields(settings) if field.name != "artefacts"}
    return {name: value.item() if isinstance(value, Tensor) else value for name, value in named.items()}


def paper_settings(**changes: object) -> RenderSettings:
    """The DiffUS paper's pipeline: steady-state reflection of impedance alone, shown linearly, with its artefacts."""
    paper = RenderSettings(
        echo="layered",
        attenuation=False,
        speckle=False,
        psf=False,
        reflection_db=0.0,
        noise_db=None,
        gain_db=46.0,
        compression="linear",
        artefacts=PaperArtefacts(),
    )
    return paper.replace(**changes)


PRESETS = {"default": RenderSettings, "paper": paper_settings}


def make_settings(preset: str = "default", **settings: object) -> RenderSettings:
    """RenderSettings by name, on top of a preset (`default` or `paper`).

    Raises InputError for an unknown preset or setting, with the known ones.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(f"There is no render preset {preset!r}; choose one of {', '.join(PRESETS)}.")
    known = RenderSettings.__dataclass_fields__
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(f"Unknown render setting {', '.join(unknown)}; the known ones are {', '.join(known)}.")
    return PRESETS[preset](**settings)


def _require_in_range(name: str, value: object) -> None:
    if value is None and name in _MAY_BE_NONE:
        return
    if isinstance(value, Tensor) and name in _MAY_BE_TENSOR and value.ndim == 0:
        value = value.item()
    low, high = _RANGES[name]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise InputError(f"{name} must be one finite number, but it is {value!r}.")
    if not low <= value <= high:
        raise InputError(f"{name} is {value:g}; choose {low:g} to {high:g}.")
