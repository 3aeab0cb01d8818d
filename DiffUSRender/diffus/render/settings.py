"""How a frame is rendered: every choice that belongs neither to the medium nor to the probe."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING

from ..errors import InputError, _
from ..settings import SEED, check_settings, setting

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

# Echo models by name; render.echo puts its functions in, and others may add theirs.
ECHO_MODELS: dict[str, Callable | None] = dict.fromkeys(("layered", "transmission", "reverberation"))


@dataclass(frozen=True, kw_only=True)
class PaperArtefacts:
    """The image-space artefacts of the DiffUS paper; the fields are those of `render.paper`."""

    radial_std: float | Tensor = 0.1
    radial_power: float | Tensor = 2.0
    local_std: float | Tensor = 0.02
    local_power: float | Tensor = 1.5
    grain_growth: float | Tensor = 0.008
    blur_sigma_mm: float | Tensor = 0.3
    blur_growth: float | Tensor = 0.01


@dataclass(frozen=True, kw_only=True)
class RenderSettings:
    """Settings of a frame; those that gradients may fit (gain, TGC, range, noise, reflection, lobe) may be 0-d tensors.

    Args:
        echo, attenuation, ...: declared below with units and ranges.
        artefacts: the paper's image-space artefacts, their numbers by name, or None.

    Raises:
        InputError: a value out of range.
    """

    echo: str = setting(
        str,
        "transmission",
        choices=ECHO_MODELS,
        help="Echo model; layered: the paper's.",
    )
    attenuation: bool = setting(bool, True, help="Whether tissue attenuates, a f^b dB/cm.")
    speckle: bool = setting(bool, True, help="Whether tissue scatters.")
    psf: bool = setting(bool, True, help="Whether pulse and beam blur.")
    reflection_db: float | Tensor = setting(
        float,
        46.0,
        low=-40.0,
        high=120.0,
        unit="dB",
        help="Level of a full reflection above white-matter speckle.",
        fitted=True,
    )
    specular_exponent: float | Tensor = setting(
        float,
        6.0,
        low=0.0,
        high=64.0,
        help="Fall-off |cos|^m of boundaries and sheets met at an angle; 0 is none.",
        fitted=True,
    )
    diffuse_db: float | Tensor = setting(
        float,
        -30.0,
        low=-60.0,
        high=0.0,
        unit="dB",
        help="What remains of a boundary seen from the side.",
        fitted=True,
        panel=False,
    )
    sheet_db: float | Tensor | None = setting(
        float,
        0.0,
        low=-60.0,
        high=60.0,
        unit="dB",
        help="Level of thin bright structures (falx, pia, fascia) above the medium's, or none of them.",
        optional=True,
        fitted=True,
    )
    sheet_diffuse_db: float | Tensor = setting(
        float,
        -6.0,
        low=-60.0,
        high=0.0,
        unit="dB",
        help="What remains of a sheet seen from the side: they are rough.",
        fitted=True,
        panel=False,
    )
    sheet_coherence: float | Tensor = setting(
        float,
        0.5,
        low=0.0,
        high=1.0,
        help="Fraction of their power that is a smooth line; the rest is grain.",
        panel=False,
    )
    a_line_db: float | Tensor = setting(
        float,
        -20.0,
        low=-160.0,
        high=0.0,
        unit="dB",
        help="Each repeat between gas and the transducer's face (A-lines).",
        fitted=True,
    )
    dirty_shadow_db: float | Tensor = setting(
        float,
        -10.0,
        low=-160.0,
        high=40.0,
        unit="dB",
        help="Haze behind gas relative to white-matter speckle.",
        fitted=True,
    )
    noise_db: float | Tensor | None = setting(
        float,
        -65.0,
        low=-160.0,
        high=40.0,
        unit="dB",
        help="Electronic noise relative to white-matter speckle at the transmit focus, or none.",
        optional=True,
        fitted=True,
    )
    clutter_db: float | Tensor | None = setting(
        float,
        -40.0,
        low=-120.0,
        high=0.0,
        unit="dB",
        help="Side lobes and haze at the transmit focus, against the tissue around, or none.",
        optional=True,
        fitted=True,
    )
    tgc_db_per_cm: float | Tensor | None = setting(
        float,
        None,
        low=0.0,
        high=40.0,
        unit="dB/cm",
        help="Time gain compensation, two-way; else 0.6 dB/(cm MHz) each way.",
        optional=True,
        fitted=True,
    )
    tgc_margin_db: float | Tensor | None = setting(
        float,
        34.0,
        low=-40.0,
        high=120.0,
        unit="dB",
        help="The time gain keeps noise this far below white matter, or lifts all.",
        optional=True,
        fitted=True,
        panel=False,
    )
    tgc_reach: float | Tensor = setting(
        float,
        0.3,
        low=0.01,
        high=1.0,
        help="Fraction of the image's depth down to which the time gain rises; 1 is all of it.",
        fitted=True,
    )
    focal_gain: float | Tensor = setting(
        float,
        0.0,
        low=0.0,
        high=1.0,
        help="Fraction of the beam's gain at the focus that the time gain leaves.",
        fitted=True,
        panel=False,
    )
    gain_db: float | Tensor = setting(
        float, -7.0, low=-120.0, high=120.0, unit="dB", help="Of the display.", fitted=True
    )
    dynamic_range_db: float | Tensor = setting(
        float, 60.0, low=1.0, high=160.0, unit="dB", help="Of the display.", fitted=True
    )
    grey_contrast: float | Tensor = setting(
        float, 1.0, low=1.0, high=6.0, help="Of the S-shaped grey map; 1 is straight.", fitted=True
    )
    black_level: float | Tensor = setting(
        float,
        0.0,
        low=0.0,
        high=0.5,
        help="Brightness of black in the fan; video recorders keep 16 of 255.",
        fitted=True,
    )
    edge_enhancement: float | Tensor = setting(
        float, 0.0, low=0.0, high=4.0, help="Of the slice (unsharp masking); 0 is none.", fitted=True
    )
    compounding: int = setting(
        int, 1, low=1, high=15, help="Looks at different angles whose envelopes the slice averages."
    )
    persistence: float = setting(
        float, 0.0, low=0.0, high=0.95, help="Weight of the last frame where frames are shown one by one."
    )
    compression: str = setting(str, "log", choices=("log", "linear"), help="Of the display.")
    start_depth_mm: float = setting(
        float, 0.0, low=0.0, high=400.0, unit="mm", help="All nearer is coupling: opened skull."
    )
    grain_mm: float | None = setting(
        float,
        None,
        low=0.005,
        high=10.0,
        unit="mm",
        help="Size of the scatterers; else half the pulse length.",
        optional=True,
        panel=False,
    )
    seed: int = field(default=SEED.default, metadata={"setting": SEED})
    artefacts: PaperArtefacts | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_settings(self)
        if isinstance(self.artefacts, Mapping):  # of a file
            object.__setattr__(self, "artefacts", _artefacts(self.artefacts))
        if self.artefacts is not None and not isinstance(self.artefacts, PaperArtefacts):
            raise InputError(
                _("artefacts must be None or PaperArtefacts, but they are {artefacts!r}."), artefacts=self.artefacts
            )

    def replace(self, **changes: object) -> RenderSettings:
        """The same settings with some changed."""
        return replace(self, **changes)


def settings_to_dict(settings: RenderSettings) -> dict[str, object]:
    """The settings as plain numbers by name, for a file; the paper's artefacts are a dictionary in it, or None."""
    named = _plain(settings)
    return named | {"artefacts": None if settings.artefacts is None else _plain(settings.artefacts)}


def _plain(values: RenderSettings | PaperArtefacts) -> dict[str, object]:
    named = {one.name: getattr(values, one.name) for one in fields(values)}
    return {name: value.item() if hasattr(value, "requires_grad") else value for name, value in named.items()}


def _artefacts(values: Mapping[str, object]) -> PaperArtefacts:
    """The artefacts of a file."""
    known = PaperArtefacts.__dataclass_fields__
    for name, value in values.items():
        if name not in known or isinstance(value, bool) or not isinstance(value, (int, float)):
            raise InputError(
                _("The artefacts must be numbers called {known}, but {name} is {value!r}."),
                known=", ".join(known),
                name=name,
                value=value,
            )
    return PaperArtefacts(**values)


def paper_settings(**changes: object) -> RenderSettings:
    """The DiffUS paper's pipeline: steady-state reflection of impedance alone, shown linearly, with its artefacts."""
    paper = RenderSettings(
        echo="layered",
        attenuation=False,
        speckle=False,
        psf=False,
        clutter_db=None,
        reflection_db=0.0,
        specular_exponent=0.0,
        sheet_db=None,
        noise_db=None,
        gain_db=46.0,
        compression="linear",
        artefacts=PaperArtefacts(),
    )
    return paper.replace(**changes)


# What scanners' presets look like; every one on top of the default's physics.
LOOKS = {
    "neuro": {"dynamic_range_db": 60.0, "grey_contrast": 1.3},
    "abdomen": {
        "dynamic_range_db": 65.0,
        "noise_db": -85.0,
        "tgc_reach": 0.6,
        "clutter_db": -36.0,
        "compounding": 3,
        "persistence": 0.4,
    },
    "cardiac": {
        "dynamic_range_db": 55.0,
        "gain_db": -8.0,
        "noise_db": -80.0,
        "tgc_reach": 0.8,
        "clutter_db": -42.0,
        "grey_contrast": 1.4,
        "edge_enhancement": 0.3,
    },
    "vascular": {
        "dynamic_range_db": 60.0,
        "noise_db": -75.0,
        "tgc_reach": 0.8,
        "clutter_db": -45.0,
        "compounding": 3,
        "grey_contrast": 1.3,
    },
}
PRESETS = {
    "default": RenderSettings,
    "paper": paper_settings,
    **{name: functools.partial(RenderSettings, **numbers) for name, numbers in LOOKS.items()},
}
PRESET_HELP = {
    "default": "straight grey map, moderate noise",
    "paper": "the DiffUS paper's pipeline: reflections alone, linear display, its artefacts",
    "neuro": "open skull, small high-frequency probe: firm grey map, far field sinks into black",
    "abdomen": "deep and soft: low noise, wide range, some haze, frames averaged",
    "cardiac": "hard grey map, black blood, enhanced edges, no averaging",
    "vascular": "small parts: clean lumen, firm grey map",
}


def make_settings(preset: str = "default", **settings: object) -> RenderSettings:
    """Settings by name, on top of a preset.

    Args:
        preset: one of `PRESETS`; `PRESET_HELP` says what they are.
        settings: fields of `RenderSettings`.

    Raises:
        InputError: an unknown preset or setting, with the known ones, or a value out of range.
    """
    if not isinstance(preset, str) or preset not in PRESETS:
        raise InputError(
            _("There is no render preset {preset!r}; choose one of {names}."), preset=preset, names=", ".join(PRESETS)
        )
    known = RenderSettings.__dataclass_fields__
    unknown = sorted(set(settings) - set(known))
    if unknown:
        raise InputError(
            _("Unknown render setting {names}; the known ones are {known}."),
            names=", ".join(unknown),
            known=", ".join(known),
        )
    return PRESETS[preset](**settings)
