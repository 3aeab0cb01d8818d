"""Fits acquisition, tissues and the impedance network to an aligned tracked sweep, by back-propagation.

What can be known (identifiability). Brightness tells the level of a tissue's scattering only up to the gain, and its
attenuation only up to the time gain: where gain (time gain) and scattering (attenuation) are fitted together, one
tissue, that of the largest fraction, keeps its scattering (attenuation) and the others are found relative to it.
Boundaries tell ratios of impedances: the same tissue keeps its impedance. Frequency shows in the size of speckle, and
in attenuation where that is held; focus only in the width of speckle by depth, and little where the transmit aperture
is much smaller than the receive aperture. Noise shows where nothing scatters. The dynamic range also takes up what the
scanner does to speckle that the probe given does not (fewer lines, compounding, filters). Whatever the frames do not
tell stays near its start, by its prior, and its `learned` says so.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import gaussian_blur
from ..geometry.pose import require_rigid, transform_points
from ..medium.impedance import ImpedanceMLP
from ..medium.memberships import network_levels
from ..medium.tissue import Tissue, tissue_properties
from ..metrics.images import ncc
from ..render.expected import expected_polar, require_expectable
from ..render.plan import plan_frame
from ..render.renderer import render_slice
from ..render.settings import RenderSettings
from ..sweep.probe_sweep import (
    PolarSweep,
    beam_of,
    frame_grid,
    inside_fan,
    polar_sweep,
    probe_of_sweep,
    shows_slices_of,
)
from ..sweep.sweep import TrackedSweep, choose_frames
from .media import FittableMedium, Fractions
from .objective import SAMPLES_PER_CELL, mean_misfit, texture_features, texture_misfit, unclipped
from .parameters import (
    NETWORK,
    OF_PROBE,
    TISSUE_CHANNELS,
    Unknowns,
    acquisition_parameters,
    chosen_parameters,
    tissue_parameters,
)
from .result import FitResult, FitState, Fitted, Score

if TYPE_CHECKING:
    from jaxtyping import Float

    from ..probe import Probe
    from ..render.plan import FramePlan

    Acquisition = dict[str, Tensor] | dict[str, float]
    Table = Float[Tensor, "c 4"]
    Curve = Float[Tensor, " knots"]

GRID = (96, 160)  # rays and samples that the mean is compared on, at most
FINE_GRID = (192, 400)  # and the texture, and the rendered frames
TEXTURE_FRAMES = 6
HELD_FRAMES = 6
ITERATIONS = 4  # of L-BFGS in a step
NETWORK_SD_MRAYL = 0.02  # what is believed of the network's curve
NETWORK_FREEDOM = 4.0  # independent points along it
SMOOTHING_MM = 2.0  # of both images, for the second NCC
FOCI = 12  # that are tried half-way: a far focus pulls too weakly to be found by descent
TEXTURE_PARAMETERS = ("dynamic_range_db", "focus_mm", "frequency_mhz")


@dataclass(frozen=True)
class _View:
    """Some frames on one polar grid: points in the medium's world, fractions there, brightness and weight."""

    frames: Tensor
    polar: PolarSweep
    points: Tensor
    fractions: Fractions
    weight: Tensor


class AppearanceFit:
    """Iterate over it (stop asking to cancel), then read `result`.

    The same seed gives the same result on one machine with one number of threads.

    Args:
        medium: from `media`.
        sweep: at least four frames.
        mri_to_reference: (4, 4), the alignment.
        probe: None finds the fan in the frames, at 5 MHz.
        pixel_to_probe: (4, 4), where the fan lies in the frames; None finds it in them (frequency, focus and apertures
            are then the given probe's, the shape is the found fan's).
        settings: where the acquisition starts.
        parameters: names of `GROUPS`, `ACQUISITION` or `TISSUE_CHANNELS`.
        frames: how many are fitted to.
        steps: each of `ITERATIONS` of L-BFGS.
        seed: of the speckle that is rendered.
        held_out: keep the third quarter of the sweep for the score; without it (for fewer than four frames) all are
            fitted, and scored.

    Raises:
        InputError: for parameters that this medium or these settings cannot tell, and for too few frames or steps.
    """

    def __init__(
        self,
        medium: FittableMedium,
        sweep: TrackedSweep,
        mri_to_reference: Float[Tensor, "4 4"],
        *,
        probe: Probe | None = None,
        pixel_to_probe: Float[Tensor, "4 4"] | None = None,
        settings: RenderSettings | None = None,
        parameters: Sequence[str] = ("acquisition",),
        frames: int = 8,
        steps: int = 16,
        seed: int = 0,
        held_out: bool = True,
    ):
        self.names = chosen_parameters(parameters)
        settings = settings or RenderSettings()
        require_expectable(settings)
        _require_fittable(self.names, medium, settings)
        if steps < 2 or frames < 1:
            raise InputError(_("A fit needs at least one frame and two steps."))
        self.medium, self.sweep, self.steps = medium, sweep, steps
        self.settings = settings.replace(seed=seed)
        self.to_mri = torch.linalg.inv(require_rigid(torch.as_tensor(mri_to_reference).double(), "The alignment"))
        self.probe, self.pixel_to_probe = _probe_in_frames(sweep, probe, pixel_to_probe)
        # Of the fan's shape alone, whatever the rays and samples of a view.
        self.grid = frame_grid(self.probe, self.pixel_to_probe, *sweep.frames.shape[1:])
        self.in_fan = inside_fan(self.grid)
        kept, held = split_frames(len(sweep)) if held_out else 2 * (torch.arange(len(sweep)),)
        self.kept = kept[choose_frames(sweep.subset(kept), frames)]
        self.held = held[choose_frames(sweep.subset(held), HELD_FRAMES)]
        self.result: FitResult | None = None

    def __iter__(self) -> Iterator[FitState]:
        self.result = None
        self._look()
        before = self._score({}, None, None)
        unknowns, network = self._unknowns(), self._network()
        for step in range(1, self.steps + 1):
            if step == 1 or step == 1 + self.steps // 2:
                # A new start for the curvature too: half-way the focus may jump.
                descent = self._descent(unknowns, network)
            loss = descent()
            if step == self.steps // 2 and "focus_mm" in self.names:
                self._search_focus(unknowns, network)
            values = {name: value.item() for name, value in unknowns.acquisition().items()}
            yield FitState(step, self.steps, loss, values)
        self.result = self._finish(unknowns, network, before)

    # --- what is looked at

    def _look(self) -> None:
        """Samples medium and frames on the two grids, once."""
        coarse = tuple(min(n, m) for n, m in zip((self.probe.rays, self.probe.samples), GRID))
        fine = tuple(min(n, m) for n, m in zip((self.probe.rays, self.probe.samples), FINE_GRID))
        jobs = [(self.kept, coarse), (self.held, fine)]
        self.texture = bool(set(TEXTURE_PARAMETERS) & set(self.names))
        if self.texture:
            step = max(1, math.ceil(len(self.kept) / TEXTURE_FRAMES))
            jobs.append((self.kept[::step], fine))
        views = []
        for frames, (rays, samples) in jobs:
            polar = polar_sweep(self.sweep.subset(frames), self.probe, self.pixel_to_probe, rays=rays, samples=samples)
            points = transform_points(self.to_mri, polar.points(slice(None), torch.float64).flatten(0, -2))
            views.append((frames, polar, points.reshape(len(frames), -1, rays, samples, 3)))
        inside = [self.medium.contains(points[:, 0]) & polar.inside for _, polar, points in views]
        if not inside[0].any():
            raise InputError(_("The sweep lies outside of the volume; check the initial transform."))
        fractions = self.medium.sample([points for _, _, points in views])
        made = [
            _View(frames, polar, points.float(), made_of, weight.float())
            for (frames, polar, points), made_of, weight in zip(views, fractions, inside)
        ]
        self.coarse, self.scored = made[0], made[1]
        self.evidence = float(self.coarse.weight.sum()) / SAMPLES_PER_CELL
        if self.texture:
            self.fine = replace(made[2], weight=unclipped(made[2].polar.brightness, made[2].weight))
            self.wanted, self.cells = texture_features(self.fine.polar.brightness, self.fine.weight)

    def _unknowns(self) -> Unknowns:
        acquisition = acquisition_parameters(self.names, self.probe, self.settings)
        tissues = self.medium.tissues
        reference = self._reference()
        held = {
            "impedance_mrayl": reference,
            "attenuation_db_cm_mhz": reference if {"tgc_db_per_cm", "frequency_mhz"} & set(self.names) else None,
            "scattering_db": reference if "gain_db" in self.names else None,
        }
        channels = [c for c in TISSUE_CHANNELS if c in self.names]
        if self.medium.mapping is not None:  # an MRI's impedance belongs to the network
            channels = [c for c in channels if c != "impedance_mrayl"]
        return Unknowns(acquisition, {c: tissue_parameters(c, tissues, held[c]) for c in channels})

    def _reference(self) -> int | None:
        """The tissue that fills most of what is seen, of those that scatter."""
        if not self.medium.tissues:
            return None
        total = (self.coarse.fractions.tissues * self.coarse.weight[:, None]).flatten(1).sum(1)
        scatters = total.new_tensor([t.scattering_db > -30 for t in self.medium.tissues])
        return int((total * scatters).argmax())

    def _network(self) -> ImpedanceMLP | None:
        if NETWORK not in self.names:
            return None
        network = ImpedanceMLP()
        network.load_state_dict(self.medium.mapping.state_dict())
        return network

    # --- the objective

    def _loss(self, unknowns: Unknowns, network: ImpedanceMLP | None) -> Tensor:
        """Negative log posterior over the number of independent measurements."""
        acquisition = unknowns.acquisition()
        table = self._table(unknowns)
        curve = self._curve(network)
        plan = self._plan(self.coarse, acquisition, speckle=False)
        seen = expected_polar(plan, self.coarse.fractions.mixed(table, curve), self.coarse.points)
        loss = 0.5 * self.evidence * mean_misfit(seen, self.coarse.polar.brightness, self.coarse.weight)
        if self.texture:
            loss = loss + self._texture_loss(acquisition, table, curve)
        if network is not None:
            moved = (curve - self._curve(self.medium.mapping)) / NETWORK_SD_MRAYL
            loss = loss + 0.5 * NETWORK_FREEDOM * moved.square().mean()
        return (loss + unknowns.penalty()) / self.evidence

    def _descent(self, unknowns: Unknowns, network: ImpedanceMLP | None) -> Callable[[], float]:
        """A step of L-BFGS on everything that is fitted, to be called again and again; it returns the loss before."""
        moved = [unknowns.t, *([] if network is None else network.parameters())]
        optimizer = torch.optim.LBFGS(moved, max_iter=ITERATIONS, history_size=20, line_search_fn="strong_wolfe")

        def closure() -> Tensor:
            with torch.enable_grad():
                optimizer.zero_grad()
                loss = self._loss(unknowns, network)
                loss.backward()
            return loss

        def descend() -> float:
            return optimizer.step(closure).item()

        return descend

    def _texture_loss(self, acquisition: Acquisition, table: Table | None, curve: Curve | None) -> Tensor:
        view = self.fine
        frames = self._rendered(view, acquisition, table, curve)
        seen = replace(self.sweep.subset(view.frames), frames=frames)
        rays, samples = view.polar.probe.rays, view.polar.probe.samples
        again = polar_sweep(seen, self.probe, self.pixel_to_probe, rays=rays, samples=samples).brightness
        return texture_misfit(texture_features(again, view.weight)[0], self.wanted, self.cells)

    def _rendered(
        self, view: _View, acquisition: Acquisition, table: Table | None, curve: Curve | None
    ) -> Float[Tensor, "f rows columns"]:
        """A view's frames with speckle, detected at the sweep's pixels as the sweep's own are."""
        plan = self._plan(view, acquisition, speckle=True)
        pixels = plan.pixels_at(self.grid, self.in_fan)
        # The looks of a compounded image meet the medium at other points than the view's.
        made_of = self.medium if self.settings.compounding > 1 else view.fractions
        return render_slice(plan, made_of.mixed(table, curve), view.points, pixels=pixels)

    def _plan(self, view: _View, acquisition: Acquisition, *, speckle: bool) -> FramePlan:
        """The frame's constants for some values of the acquisition, by name."""
        of_probe, rest = _of_probe_and_rest(acquisition)
        # The fit does not make slices: their pixels are as coarse as is allowed.
        probe = replace(view.polar.probe, mm_per_pixel=self.probe.depth_mm / 16, **of_probe)
        return plan_frame(probe, self.settings.replace(speckle=speckle, **rest))

    def _table(self, unknowns: Unknowns | None) -> Table | None:
        if not self.medium.tissues:
            return None
        start = tissue_properties(self.medium.tissues)
        return start if unknowns is None else unknowns.table(start)

    def _curve(self, network: ImpedanceMLP | None) -> Curve | None:
        network = network or self.medium.mapping
        return None if network is None else network(network_levels())

    @torch.no_grad()
    def _search_focus(self, unknowns: Unknowns, network: ImpedanceMLP | None) -> None:
        """Moves the focus to the depth whose texture fits best, if one is better than where descent has come."""
        index = next(n for n, number in enumerate(unknowns.numbers) if number.name == "focus_mm")
        acquisition, table, curve = unknowns.acquisition(), self._table(unknowns), self._curve(network)
        start, here = unknowns.t[index].clone(), unknowns.numbers[index]
        depths = [acquisition["focus_mm"]]
        tries = [start, *torch.linspace(-4, 4, 401, dtype=torch.float64)]
        values = torch.stack([here.value(t) for t in tries])
        for fraction in torch.linspace(0.1, 1.0, FOCI).tolist():
            depths.append(values[(values - fraction * self.probe.depth_mm).abs().argmin()])
        losses = [self._texture_loss({**acquisition, "focus_mm": depth}, table, curve) for depth in depths]
        best = depths[int(torch.stack(losses).argmin())]
        unknowns.t[index] = tries[int((values - best).abs().argmin())]

    # --- the result

    @torch.no_grad()
    def _score(self, acquisition: Acquisition, table: Table | None, curve: Curve | None) -> Score:
        view, real = self.scored, self.sweep.subset(self.scored.frames)
        table = self._table(None) if table is None else table
        curve = self._curve(None) if curve is None else curve
        shown = self._rendered(view, acquisition, table, curve)
        inside = view.polar.in_frame(view.weight, *real.frames.shape[1:]) * real.mask
        sigma = SMOOTHING_MM / real.pixel_mm[0].item()
        weight = gaussian_blur(inside, sigma).clamp(min=1e-3)
        smoothed = [gaussian_blur(frames * inside, sigma) / weight for frames in (shown, real.frames)]
        return Score(ncc(shown, real.frames, inside).mean().item(), ncc(*smoothed, inside).mean().item())

    def _finish(self, unknowns: Unknowns, network: ImpedanceMLP | None, before: Score) -> FitResult:
        learned = self._learned(unknowns, network)
        with torch.no_grad():
            acquisition = {name: value.item() for name, value in unknowns.acquisition().items()}
            table, curve = self._table(unknowns), self._curve(network)
            numbers = tuple(
                Fitted(
                    number.name,
                    "" if tissue is None else self.medium.tissues[tissue].name,
                    number.start,
                    number.value(t).item(),
                    known,
                )
                for number, tissue, t, known in zip(unknowns.numbers, unknowns.tissues, unknowns.t, learned)
            )
        of_probe, rest = _of_probe_and_rest(acquisition)
        mapping = self.medium.mapping if network is None else network.requires_grad_(False).eval()
        return FitResult(
            replace(self.probe, **of_probe),
            self.settings.replace(**rest),
            _tissues(self.medium.tissues, numbers),
            mapping,
            numbers,
            before,
            self._score(acquisition, table, curve),
            tuple(self.kept.tolist()),
            tuple(n for n in self.held.tolist() if n not in self.kept),
        )

    def _learned(self, unknowns: Unknowns, network: ImpedanceMLP | None, step: float = 0.05) -> list[float]:
        """Of every number, 1 minus its posterior over its prior variance: the inverse Hessian, by differences."""
        count = len(unknowns.t)
        rows = []
        for index in range(count):
            ends = []
            for sign in (1, -1):
                with torch.no_grad():
                    unknowns.t[index] += sign * step
                with torch.enable_grad():
                    (gradient,) = torch.autograd.grad(self._loss(unknowns, network) * self.evidence, unknowns.t)
                ends.append(gradient)
                with torch.no_grad():
                    unknowns.t[index] -= sign * step
            rows.append((ends[0] - ends[1]) / (2 * step))
        if not rows:
            return []
        hessian = torch.stack(rows)
        values, vectors = torch.linalg.eigh(0.5 * (hessian + hessian.T))
        # No direction can be known less than its prior says.
        variance = (vectors.square() / values.clamp(min=1.0)).sum(1)
        return (1 - variance).clamp(0, 1).tolist()


def _of_probe_and_rest(acquisition: Acquisition) -> tuple[Acquisition, Acquisition]:
    """The values that belong to the probe, and those of the settings, by name."""
    of_probe = {name: value for name, value in acquisition.items() if name in OF_PROBE}
    return of_probe, {name: value for name, value in acquisition.items() if name not in of_probe}


def split_frames(count: int) -> tuple[Tensor, Tensor]:
    """Indices of the frames to fit to, and of those held out: the third quarter.

    Raises:
        InputError: for fewer than four frames.
    """
    if count < 4:
        raise InputError(
            _("A fit with held-out frames needs at least 4 frames, not {count}; give a longer sweep."), count=count
        )
    index = torch.arange(count)
    held = (index >= count // 2) & (index < count // 2 + max(1, count // 4))
    return index[~held], index[held]


def _probe_in_frames(
    sweep: TrackedSweep, probe: Probe | None, pixel_to_probe: Tensor | None
) -> tuple[Probe, Float[Tensor, "4 4"]]:
    if probe is not None and pixel_to_probe is not None:
        return probe, pixel_to_probe
    if probe is not None and shows_slices_of(sweep, probe):
        return probe, probe.slice_geometry().pixel_to_probe
    found, pixel_to_probe = probe_of_sweep(sweep)
    return (found if probe is None else replace(found, **beam_of(probe))), pixel_to_probe


def _require_fittable(names: Sequence[str], medium: FittableMedium, settings: RenderSettings) -> None:
    if set(names) & set(TISSUE_CHANNELS) and not medium.tissues:
        raise InputError(_("A CT's tissues are not in the table: fit the acquisition, or use labels or an MRI."))
    if NETWORK in names and medium.mapping is None:
        raise InputError(_("Only an MRI has an impedance network to fit; leave 'impedance' out."))
    if names == ("impedance_mrayl",) and medium.mapping is not None:
        raise InputError(_("An MRI's impedance is its network's: fit 'impedance' instead of 'impedance_mrayl'."))
    if set(names) & {"attenuation_db_cm_mhz"} and not settings.attenuation:
        raise InputError(_("Attenuation cannot be fitted while it is switched off."))


def _tissues(tissues: Sequence[Tissue], numbers: Sequence[Fitted]) -> tuple[Tissue, ...]:
    changed: dict[str, dict[str, float]] = {}
    for number in numbers:
        if number.tissue:
            changed.setdefault(number.tissue, {})[number.name] = number.value
    return tuple(
        replace(tissue, **changed[tissue.name], source="fitted to a sweep") if tissue.name in changed else tissue
        for tissue in tissues
    )
