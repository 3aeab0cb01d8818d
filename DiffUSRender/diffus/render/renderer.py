"""The whole frame: medium + probe + pose -> B-mode slice, differentiable from end to end."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields, replace
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn

from ..errors import InputError, _
from ..geometry.pose import place_samples, require_rigid
from ..settings import declared
from .compounding import in_look, look_angles, turned_points
from .display import POWER_FLOOR, enhance_edges, linear_brightness, log_compress
from .gain import time_gain_db_per_cm
from .moments import echo_moments
from .noise import frame_noise
from .paper import lateral_blur, multiplicative_speckle
from .plan import FramePlan, detects_at_pixels, plan_frame, plane_samples
from .scan_conversion import Pixels, scan_convert
from .settings import RenderSettings, make_settings

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..medium import AcousticMedium
    from ..medium.medium import Samplable
    from ..probe import Probe

Declared = TypeVar("Declared")  # probe or settings
LOOK_MM = (61.3, 47.9, 83.7)  # in the tissue, from the speckle of one look to that of the next: far beyond any grain
OVERLAP_STRIDE = 8  # a fan that meets the volume does so at one of every so many samples


def render_iq(plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"]) -> Tensor:
    """Complex echo (B, 2, rays, samples), before noise and gain, of sub-ray samples at points (B, S, rays, samples, 3).

    Points are in the medium's world, mm. The amplitude unit is fully developed white-matter speckle at the face.
    """
    coherent, power = echo_moments(plan, medium, points)
    speckle = None
    if plan.field is not None:
        speckle = plan.at_samples.speckle_at(speckle_of(plan, points)).view(-1, 2, *coherent.shape[1:])
    return _together(coherent, (power + POWER_FLOOR).sqrt(), speckle)


def noise_iq(plan: FramePlan, frame: int, count: int) -> Float[Tensor, "b 2 rays samples"]:
    """The receiver's noise at the samples of frames `frame`, `frame` + 1, ...; the plan has noise."""
    noise = plan.at_samples.noise_at(frame_noise(plan.noise, plan.settings.seed, frame, count))
    return noise.view(count, 2, plan.probe.rays, plan.probe.samples) * plan.noise_level


def speckle_of(
    plan: FramePlan, points: Float[Tensor, "b s rays samples 3"], look: int = 0
) -> Float[Tensor, "b 2 depths lines"]:
    """Speckle of unit power on the plan's lines, in the plane through points in the tissue's world, mm.

    Every look of a compounded image sees speckle of its own, locked to the tissue as well.
    """
    plane = plan.plane @ plane_samples(points)  # two axes and the origin
    if look:
        plane = plane + look * torch.tensor([[0.0] * 3, [0.0] * 3, LOOK_MM]).to(plane)
    return plan.field(plane.transpose(1, 2))


def render_polar(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"], frame: int = 0
) -> Float[Tensor, "b rays samples"]:
    """Polar B-mode (B, rays, samples) in [0, 1] of points (B, S, rays, samples, 3) in the medium's world, mm.

    Each of the batch has noise of its own, that of frames `frame`, `frame` + 1, ...
    """
    iq = render_iq(plan, medium, points)
    if plan.noise is not None:
        iq = iq + noise_iq(plan, frame, len(iq))
    polar = _brightness(plan, iq, plan.gain_db)
    if plan.settings.artefacts is not None:
        polar = _with_artefacts(plan, polar)
    return polar


def render_slice(
    plan: FramePlan,
    medium: Samplable,
    points: Float[Tensor, "b s rays samples 3"],
    frame: int = 0,
    pixels: Pixels | None = None,
) -> Float[Tensor, "b rows columns"]:
    """The slice (B, rows, columns), or other pixels of `plan.pixels_at`; arguments as of `render_polar`.

    The complex echo is carried to the pixels, and detected and compressed there, as in a scanner: between the
    samples of a polar image speckle would be smoothed.
    """
    pixels = plan.pixels if pixels is None else pixels
    if not detects_at_pixels(plan.settings):
        polar = render_polar(plan, medium, points, frame)[:, None]
        if pixels is None:
            return _edges(plan, scan_convert(polar[:, 0], plan.grid, plan.inside), plan.inside)
        return _edges(plan, pixels.image(pixels.sampled(polar)[:, 0]), pixels.inside)
    angles = look_angles(plan.probe, plan.settings.compounding)
    # Looks of one angle differ in their speckle and noise alone.
    seen_by = {angle: _moments_at_pixels(plan, medium, points, pixels, angle) for angle in dict.fromkeys(angles)}
    looks = [_look(plan, points, frame, pixels, n, *seen_by[angle][:2]) for n, angle in enumerate(angles)]
    if len(looks) == 1:
        iq = looks[0]
    else:
        seen = torch.stack([seen_by[angle][2] for angle in angles]).to(points.dtype)
        envelopes = torch.stack([(iq.square().sum(1) + POWER_FLOOR).sqrt() for iq in looks])
        # At the fan's sides only some of the looks see anything.
        envelope = (envelopes * seen[:, None]).sum(0) / seen.sum(0).clamp(min=1)
        iq = torch.stack([envelope, torch.zeros_like(envelope)], 1)
    return _edges(plan, pixels.image(_brightness(plan, iq[:, :, None], pixels.gain_db)[:, 0]), pixels.inside)


def _moments_at_pixels(
    plan: FramePlan, medium: Samplable, points: Float[Tensor, "b s rays samples 3"], pixels: Pixels, angle: float
) -> tuple[Float[Tensor, "b pixels"], Float[Tensor, "b pixels"], Bool[Tensor, " pixels"]]:
    """The echo's mean and its speckle's amplitude at the pixels, of rays turned by an angle; and which these reach."""
    where, seen = in_look(plan.probe, pixels.where, angle)
    coherent, power = echo_moments(plan, medium, turned_points(plan.probe, points, angle))
    amplitude = (power + POWER_FLOOR).sqrt()
    coherent, amplitude = pixels.sampled(torch.stack([coherent, amplitude], 1), where).unbind(1)
    return coherent, amplitude, seen


def _look(
    plan: FramePlan,
    points: Float[Tensor, "b s rays samples 3"],
    frame: int,
    pixels: Pixels,
    number: int,
    coherent: Float[Tensor, "b pixels"],
    amplitude: Float[Tensor, "b pixels"],
) -> Float[Tensor, "b 2 pixels"]:
    """The complex echo of one look at the pixels, with speckle and noise of its own."""
    speckle = None if plan.field is None else pixels.lines.speckle_at(speckle_of(plan, points, number))
    iq = _together(coherent, amplitude, speckle)
    if plan.noise is not None:
        iq += pixels.lines.noise_at(frame_noise(plan.noise, plan.settings.seed + number, frame, len(iq)))
    return iq


def _edges(plan: FramePlan, images: Tensor, inside: Tensor) -> Tensor:
    return enhance_edges(images, plan.settings.edge_enhancement, inside)


def _together(coherent: Tensor, amplitude: Tensor, speckle: Tensor | None) -> Tensor:
    """The complex echo (B, 2, ...) of its mean and the amplitude (B, ...) of its speckle (B, 2, ...), if any."""
    if speckle is None:
        return torch.stack([coherent, torch.zeros_like(coherent)], 1)
    iq = speckle * amplitude[:, None]
    iq[:, 0].add_(coherent)
    return iq


def _brightness(plan: FramePlan, iq: Float[Tensor, "b 2 rays samples"], gain_db: Tensor) -> Tensor:
    if plan.settings.compression == "log":
        shown = plan.settings
        return log_compress(iq, gain_db, shown.dynamic_range_db, shown.grey_contrast, shown.black_level)
    return linear_brightness(iq, gain_db)


class UltrasoundRenderer(nn.Module):
    """Renders slices of a medium at probe poses.

    `renderer(medium, probe_to_ras)` gives (B, rows, columns) in [0, 1], in the geometry of `probe.slice_geometry()`,
    with the dtype and on the device of the medium. Numbers of probe and settings that are `nn.Parameter`s, and those
    named by `fit`, are parameters of the module: an optimizer fits them, `state_dict` holds them. What follows from
    probe and settings is never older than they are.

    Args:
        probe: the array; may be set anew.
        echo: echo model; None leaves that of the preset.
        fit: names of numbers of probe or settings that become parameters, at their present values.
        settings: fields of `RenderSettings` by name, on top of `preset`: `default` (echo `transmission`) or `paper`,
            the DiffUS paper's pipeline; the attribute `settings` may be set anew.

    Raises:
        InputError: a setting out of range, a name that cannot be fitted; when called, a pose that is not rigid or a
            fan outside of the volume.
    """

    def __init__(self, probe: Probe, echo: str | None = None, *, fit: Iterable[str] = (), **settings: object) -> None:
        super().__init__()
        self.plans = nn.ModuleDict()
        self.probe = probe
        self.settings = make_settings(**({} if echo is None else {"echo": echo}), **settings)
        for name in fit:
            if name not in self._parameters:
                self.register_parameter(name, nn.Parameter(torch.tensor(self._start(name))))

    def __setattr__(self, name: str, value: object) -> None:
        """Refuses a number of probe or settings as an attribute of its own: it would change nothing."""
        present = [values for values in (self.__dict__.get("_probe"), self.__dict__.get("_settings")) if values]
        if not isinstance(value, nn.Parameter) and any(name in _fittable(values) for values in present):
            raise InputError(_("{name} belongs to the renderer's probe or settings; set these anew."), name=name)
        super().__setattr__(name, value)

    @property
    def probe(self) -> Probe:
        """The array, with the parameters at their present values."""
        return self._with_parameters(self._probe)

    @probe.setter
    def probe(self, probe: Probe) -> None:
        self._probe = self._adopted(probe)

    @property
    def settings(self) -> RenderSettings:
        """The settings, with the parameters at their present values."""
        return self._with_parameters(self._settings)

    @settings.setter
    def settings(self, settings: RenderSettings) -> None:
        self._settings = self._adopted(settings)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """Makes a number of probe or settings a parameter; raises InputError for one that cannot be fitted."""
        self._require_fittable(name)
        super().register_parameter(name, param)
        self.plans.clear()

    def plan(self, dtype: torch.dtype, device: torch.device | str) -> FramePlan:
        """The frame's constants for a dtype and device; made once, unless tensors take part, which may change."""
        key = f"{dtype}@{device}".removeprefix("torch.")
        if key in self.plans:
            return self.plans[key]
        probe, settings = self.probe, self.settings
        # A plan made under inference mode could never serve a gradient later.
        with torch.inference_mode(False):
            plan = plan_frame(probe, settings, dtype, device)
        if not (_holds_tensors(probe) or _holds_tensors(settings) or _holds_tensors(settings.artefacts)):
            self.plans[key] = plan
        return plan

    def points_ras(self, probe_to_ras: Float[Tensor, "b 4 4"], dtype: torch.dtype = torch.float32) -> Tensor:
        """World mm of every sub-ray sample (B, S, rays, samples, 3); composed in the pose's precision."""
        points = self.plan(dtype, probe_to_ras.device).points
        return place_samples(probe_to_ras.to(dtype), points)

    def polar(self, medium: AcousticMedium, points_ras: Float[Tensor, "b s rays samples 3"], frame: int = 0) -> Tensor:
        """Polar B-mode (B, rays, samples) at points in the medium's world, also nonlinearly mapped ones."""
        require_overlap(medium, points_ras)
        return render_polar(self.plan(medium.dtype, medium.device), medium, points_ras, frame)

    def slices(
        self,
        medium: AcousticMedium,
        points_ras: Float[Tensor, "b s rays samples 3"],
        frame: int = 0,
        pixels: Pixels | None = None,
    ) -> Float[Tensor, "b rows columns"]:
        """The slices at points in the medium's world, also nonlinearly mapped ones, or other pixels of `pixels_at`."""
        require_overlap(medium, points_ras)
        return render_slice(self.plan(medium.dtype, medium.device), medium, points_ras, frame, pixels)

    def scan_convert(self, polar: Float[Tensor, "b rays samples"]) -> Float[Tensor, "b rows columns"]:
        """The slice (B, rows, columns) of a polar image (B, rays, samples); zero outside the fan."""
        plan = self.plan(polar.dtype, polar.device)
        return _edges(plan, scan_convert(polar, plan.grid, plan.inside), plan.inside)

    def forward(self, medium: AcousticMedium, probe_to_ras: Tensor, frame: int = 0) -> Float[Tensor, "b rows columns"]:
        """The slices.

        Args:
            medium: what is imaged.
            probe_to_ras: one pose (4, 4) or a batch (B, 4, 4), mm.
            frame: number of the first: each frame of a number has noise of its own, the same whenever it is rendered.
        """
        pose = require_rigid(probe_to_ras, "The probe's pose")
        # Some devices (MPS) have no float64; elsewhere the pose keeps its precision until the points are made.
        pose = pose.to(medium.device, torch.float32 if medium.device.type == "mps" else pose.dtype)
        if pose.ndim == 2:
            pose = pose[None]
        return self.slices(medium, self.points_ras(pose, medium.dtype), frame)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> UltrasoundRenderer:
        """What `.to()` and the like do: the constants are made anew for dtype and device, at their full precision."""
        present = [plan.weights for plan in self.plans.values()]
        self.plans.clear()
        super()._apply(fn, recurse)
        for weights in map(fn, present):
            self.plan(weights.dtype, weights.device)
        return self

    def _adopted(self, values: Declared) -> Declared:
        """Probe or settings with plain numbers; their parameters become the module's, in place of the former ones."""
        given = {name: getattr(values, name) for name in _fittable(values)}
        given = {name: value for name, value in given.items() if isinstance(value, nn.Parameter)}
        for name in _fittable(values):
            self._parameters.pop(name, None)
        for name, value in given.items():
            super().register_parameter(name, value)
        self.plans.clear()
        return replace(values, **{name: value.item() for name, value in given.items()})

    def _with_parameters(self, values: Declared) -> Declared:
        fitted = {name: self._parameters[name] for name in _fittable(values) if name in self._parameters}
        return replace(values, **fitted) if fitted else values

    def _require_fittable(self, name: str) -> None:
        known = _fittable(self._probe) + _fittable(self._settings)
        if name not in known:
            raise InputError(_("{name} cannot be fitted; choose from {names}."), name=name, names=", ".join(known))

    def _start(self, name: str) -> float:
        """The value from which the fit of a number begins."""
        self._require_fittable(name)
        value = getattr(self._probe if name in _fittable(self._probe) else self._settings, name)
        if value is None and name == "tgc_db_per_cm":
            value = time_gain_db_per_cm(self._probe, self._settings)
        if value is None:
            raise InputError(_("{name} is none; give it a number to be fitted."), name=name)
        return float(value)


def require_overlap(medium: AcousticMedium, points: Float[Tensor, "b s rays samples 3"]) -> None:
    """Raises InputError unless every fan of the batch, (B, S, rays, samples, 3) mm, meets the volume."""
    coarse = points.detach()[:, :, ::OVERLAP_STRIDE, ::OVERLAP_STRIDE]
    if not medium.contains(coarse).flatten(1).any(1).all():
        raise InputError(_("The probe's fan lies entirely outside the volume; move the probe onto the patient."))


def _fittable(values: object) -> list[str]:
    """The names of those numbers of probe or settings that gradients may fit."""
    return [name for name, one in declared(type(values)).items() if one.fitted]


def _holds_tensors(values: object) -> bool:
    return values is not None and any(isinstance(getattr(values, one.name), Tensor) for one in fields(values))


def _with_artefacts(plan: FramePlan, polar: Tensor) -> Tensor:
    """The paper's artefacts on a polar image (B, rays, samples)."""
    chosen, probe = plan.settings.artefacts, plan.probe
    depth, spacing = probe.depths_mm().to(polar), probe.lateral_spacing_mm().to(polar)
    noisy = multiplicative_speckle(
        polar,
        radial_std=chosen.radial_std,
        radial_power=chosen.radial_power,
        local_std=chosen.local_std,
        local_power=chosen.local_power,
        grain_growth=chosen.grain_growth,
        depths_mm=depth,
        lateral_spacing_mm=spacing,
        seed=plan.settings.seed,
    )
    return lateral_blur(noisy, depth, spacing, sigma_mm=chosen.blur_sigma_mm, growth=chosen.blur_growth).clamp(0, 1)
