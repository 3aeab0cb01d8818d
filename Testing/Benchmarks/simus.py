"""Beam, speckle level, cysts and lesions beside SIMUS (pymust), a frequency-domain simulator of arrays.

One convex array, 64 elements of the abdominal preset, focused on transmit at 60 mm with 30 of them, on receive
everywhere at f/2 (delay and sum). SIMUS simulates the echoes of single points; levels of speckle, cysts and lesions
follow from their energy, for scatterers add in power. Ours are measured on rendered IQ of uniform and of drawn tissue.
Both are planes without elevation and attenuation. pymust is optional: `.venv/bin/pip install -e .[bench]`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from Benchmarks.measure import console, report
from diffus.cli.study.figures import pyplot
from diffus.probe import ConvexProbe
from diffus.render.renderer import UltrasoundRenderer, render_iq
from scipy.signal import hilbert
from support.phantoms import phantom

COMMAND = "python Testing/Benchmarks/benchmark.py FOLDER simus"
RADIUS_MM, FOCUS_MM, SPEED_MM_US = 49.57, 60.0, 1.54
TRANSMIT_F_NUMBER, RECEIVE_F_NUMBER = 4.0, 2.0
BANDWIDTH = 0.79  # of the transducer, two-way, -6 dB
DEPTHS_MM = (15.0, 30.0, 45.0, 60.0, 75.0)
CYST_MM, LESION_DB = 5.0, -6.0  # radius, and the scatterers of the lesion against those around
RANGE_MM = np.arange(-10.0, 10.0, 0.04)  # about a point, along the ray
# Of the lines from the point. Beyond 12 degrees the grating lobes of the array's wide pitch lift cysts to -29 dB.
ANGLE_RAD = np.deg2rad(np.arange(0.0, 12.0, 0.1))
SEEDS = 12


@dataclass(frozen=True)
class Figures:
    """What is compared at one depth: widths in mm, levels in dB."""

    depth_mm: float
    axial_mm: float
    lateral_mm: float
    level_db: float
    cyst_db: float
    lesion_db: float


class Simus:
    """Point echoes of pymust's C5-2v, 64 of its elements, beamformed line by line."""

    def __init__(self) -> None:
        import pymust

        self._pymust = pymust
        self.param = param = pymust.getparam("C5-2v")
        param.Nelements, param.c, param.fs = 64, SPEED_MM_US * 1e3, 8 * param.fc
        x, z, _angle, apothem = (np.asarray(part, dtype=float).ravel() for part in param.getElementPositions())
        self.x, self.sag = x * 1e3, (param.radius - apothem[0]) * 1e3  # the face's middle lies at z = sag
        self.z, self.apothem = z * 1e3, apothem[0] * 1e3
        self.delays = pymust.txdelay(0.0, (FOCUS_MM + self.sag) * 1e-3, param)
        param.TXapodization = (np.abs(self.x) <= FOCUS_MM / (2 * TRANSMIT_F_NUMBER)).astype(float)
        active = param.TXapodization > 0
        arrival = np.asarray(self.delays).ravel() * 1e6 + np.hypot(self.x, FOCUS_MM + self.sag - self.z) / SPEED_MM_US
        self.focal_us = arrival[active].mean()

    def point(self, depth_mm: float) -> np.ndarray:
        """Complex echo (lines, range) of a point on the axis, on lines `ANGLE_RAD` off it; by symmetry one side."""
        return np.stack([self._line(depth_mm, angle) for angle in ANGLE_RAD])

    def _line(self, depth_mm: float, angle: float) -> np.ndarray:
        along = RADIUS_MM + depth_mm
        x, z = np.array([along * math.sin(angle)]), np.array([along * math.cos(angle) - self.apothem])
        echoes, _spectrum = self._pymust.simus(x * 1e-3, z * 1e-3, np.ones(1), self.delays, self.param)
        # pymust's inverse transform divides by the record's length, which follows the depth.
        signal, samples = hilbert(echoes, axis=0) * len(echoes), np.arange(len(echoes))
        depth = depth_mm + RANGE_MM
        transmit = self.focal_us + (depth - FOCUS_MM) / SPEED_MM_US
        total, active = np.zeros(len(depth), complex), np.zeros(len(depth))
        for element, (at_x, at_z) in enumerate(zip(self.x, self.z)):
            time = (transmit + np.hypot(at_x, depth + self.sag - at_z) / SPEED_MM_US) * self.param.fs * 1e-6
            value = np.interp(time, samples, signal[:, element].real) + 1j * np.interp(
                time, samples, signal[:, element].imag
            )
            taken = np.abs(at_x) <= depth / (2 * RECEIVE_F_NUMBER)
            total, active = total + value * taken, active + taken
        return total / np.sqrt(active)  # the receiver's noise is then the same at every depth


def simus_figures() -> tuple[list[Figures], np.ndarray]:
    """SIMUS' figures at every depth, and its point's echo at the focus."""
    simus, found, kept = Simus(), [], None
    for depth in DEPTHS_MM:
        echo = simus.point(depth)
        if depth == FOCUS_MM:
            kept = echo
        # One side of a symmetric beam: the axis counts once, the rest twice.
        energy = np.abs(echo) ** 2 * np.where(ANGLE_RAD > 0, 2, 1)[:, None] * (RADIUS_MM + depth)
        across = ANGLE_RAD[:, None] * (RADIUS_MM + depth)
        outside = (energy * (np.hypot(across, RANGE_MM) > CYST_MM)).sum() / energy.sum()
        inside = 1 - outside
        lateral = 2 * _half_width(np.abs(echo).max(1), ANGLE_RAD * (RADIUS_MM + depth))
        peak = np.abs(echo[0]).argmax()
        axial = _half_width(np.abs(echo[0, peak:]), RANGE_MM[peak:] - RANGE_MM[peak])
        axial += _half_width(np.abs(echo[0, peak::-1]), RANGE_MM[peak] - RANGE_MM[peak::-1])
        found.append(
            Figures(
                depth,
                axial,
                lateral,
                _db(energy.sum()),
                _db(outside),
                _db(inside * 10 ** (LESION_DB / 10) + outside),
            )
        )
    return found, kept


def abdominal(cycles: float) -> ConvexProbe:
    """The same array here; its plane is made so thick that nothing is focused in elevation."""
    return ConvexProbe(
        radius_mm=RADIUS_MM,
        fov_deg=44.0,
        frequency_mhz=3.57,
        depth_mm=90.0,
        focus_mm=FOCUS_MM,
        f_number=RECEIVE_F_NUMBER,
        transmit_f_number=TRANSMIT_F_NUMBER,
        aperture_mm=64 * 0.508,
        elevation_mm=50.0,
        cycles=cycles,
        rays=256,
        samples=900,
    )


def pulse_cycles() -> float:
    """Pulse length whose amplitude has the FWHM of one cycle sent through the transducer's band, in wavelengths.

    The band is the flat-topped one of pymust, in amplitude 1/2 at the edges of the two-way bandwidth.
    """
    frequency = np.linspace(-8, 8, 16001)  # in centre frequencies
    power = math.log(126) / math.log(2 / BANDWIDTH)
    edge = BANDWIDTH / 2 / math.log(2) ** (1 / power)
    band = np.exp(-((np.abs(frequency - 1) / edge) ** power)) * np.sinc(frequency - 1)
    time = np.linspace(0, 2, 2001)  # in periods
    pulse = np.abs(np.array([(band * np.exp(2j * math.pi * frequency * t)).sum() for t in time]))
    return 2 * _half_width(pulse, time)


def our_figures() -> tuple[list[Figures], np.ndarray]:
    """The renderer's figures from its IQ: widths from the speckle's autocorrelation, levels by averaging."""
    probe = abdominal(pulse_cycles())
    uniform = np.stack([_iq(probe, phantom(size_mm=110.0), seed) for seed in range(SEEDS)])
    cysts = [_contrasts(probe, depth) for depth in DEPTHS_MM]
    renderer = UltrasoundRenderer(probe, attenuation=False, noise_db=None, focal_gain=1.0)
    gain = renderer.plan(torch.float64, "cpu").gain_db.numpy()
    depths, found = probe.depths_mm().numpy(), []
    for depth, (cyst, lesion) in zip(DEPTHS_MM, cysts):
        near = np.abs(depths - depth) < 2.5
        part = uniform[:, 40:-40, near]
        spacing = (RADIUS_MM + depth) * math.radians(probe.fov_deg) / (probe.rays - 1)
        # What a Gaussian blurs is correlated over sqrt 2 times its width.
        lateral = 2 * _half_width(_correlation(part, 1), np.arange(60) * spacing) / math.sqrt(2)
        axial = 2 * _half_width(_correlation(part, 2), np.arange(25) * probe.sample_spacing_mm) / math.sqrt(2)
        level = _db((np.abs(part) ** 2 * 10 ** (gain[near] / 10)).mean())
        found.append(Figures(depth, axial, lateral, level, cyst, lesion))
    return found, uniform[0]


def _contrasts(probe: ConvexProbe, depth_mm: float) -> tuple[float, float]:
    """Level of a black cyst's middle and of a lesion's, against the same place in uniform tissue."""

    def drawn(scattering: float):
        def paint(maps, x, y, z) -> None:
            maps[3][torch.hypot(x, y - depth_mm) < CYST_MM] = scattering

        return phantom(paint, size_mm=110.0, spacing_mm=0.5)

    start, direction = probe.ray_geometry()
    place = start[:, None] + probe.depths_mm()[:, None] * direction[:, None]
    middle = (torch.hypot(place[..., 0], place[..., 1] - depth_mm) < 0.4 * CYST_MM).numpy()
    levels = []
    for scattering in (0.0, 10 ** (LESION_DB / 20), 1.0):
        medium = drawn(scattering)
        frames = np.stack([_iq(probe, medium, seed) for seed in range(SEEDS)])
        levels.append(_db((np.abs(frames[:, middle]) ** 2).mean()))
    return levels[0] - levels[2], levels[1] - levels[2]


def _iq(probe: ConvexProbe, medium, seed: int) -> np.ndarray:
    """Complex echo (rays, samples) without noise and gain."""
    renderer = UltrasoundRenderer(probe, noise_db=None, attenuation=False, seed=seed)
    plan = renderer.plan(medium.dtype, medium.device)
    points = renderer.points_ras(torch.eye(4, dtype=torch.float64)[None], medium.dtype)
    real, imaginary = render_iq(plan, medium, points)[0].double().numpy()
    return real + 1j * imaginary


def _correlation(iq: np.ndarray, axis: int) -> np.ndarray:
    """Autocorrelation of the complex echo along an axis, from lag 0 on."""
    iq = np.moveaxis(iq, axis, -1)
    n = iq.shape[-1]
    lags = [(iq[..., : n - lag] * iq[..., lag:].conj()).mean().real for lag in range(60 if axis == 1 else 25)]
    return np.asarray(lags) / lags[0]


def _half_width(profile: np.ndarray, at: np.ndarray) -> float:
    """Where a profile that starts at its peak has fallen to a half."""
    half = profile[0] / 2
    below = int(np.argmax(profile < half))
    fraction = (profile[below - 1] - half) / (profile[below - 1] - profile[below])
    return float(at[below - 1] + fraction * (at[below] - at[below - 1]))


def _db(power: float) -> float:
    return 10 * math.log10(power)


def run(folder: Path) -> None:
    """Writes simus.csv and simus.png into `folder`."""
    if find_spec("pymust") is None:
        console.print("simus: left out, for pymust is not installed: .venv/bin/pip install -e .[bench]")
        return
    theirs, point = simus_figures()
    ours, speckle = our_figures()
    mean = [np.mean([each.level_db for each in both]) for both in (theirs, ours)]
    names = ("axial mm", "lateral mm", "level dB", "cyst dB", "lesion dB")
    header = ["depth mm", *(heading for name in names for heading in (name, f"{name}, SIMUS"))]
    rows = [
        [
            f"{a.depth_mm:g}",
            *(f"{n:.2f}" for n in (b.axial_mm, a.axial_mm, b.lateral_mm, a.lateral_mm)),
            *(f"{n:.1f}" for n in (b.level_db - mean[1], a.level_db - mean[0], b.cyst_db, a.cyst_db)),
            *(f"{n:.2f}" for n in (b.lesion_db, a.lesion_db)),
        ]
        for a, b in zip(theirs, ours)
    ]
    title = (
        f"Point spread, level of speckle (less its mean), cyst and lesion of {LESION_DB:g} dB beside SIMUS; {COMMAND}"
    )
    report(folder, "simus", title, header, rows)
    _draw(theirs, ours, point, speckle, folder / "simus.png")


def _draw(theirs: list[Figures], ours: list[Figures], point: np.ndarray, speckle: np.ndarray, path: Path) -> None:
    plt = pyplot()
    figure, axes = plt.subplots(1, 4, figsize=(12, 3), constrained_layout=True)
    for axis, name, label in zip(
        axes, ("lateral_mm", "axial_mm", "level_db", "cyst_db"), ("lateral, mm", "axial, mm", "speckle, dB", "cyst, dB")
    ):
        for drawn, figures, style in (("SIMUS", theirs, "k--o"), ("DiffUS", ours, "C0-o")):
            values = np.array([getattr(each, name) for each in figures])
            axis.plot(DEPTHS_MM, values - values.mean() if name == "level_db" else values, style, label=drawn)
        axis.set(title=label, xlabel="depth, mm")
        if name == "cyst_db":
            axis.set_ylim(-60, 0)
        elif name != "level_db":
            axis.set_ylim(0, 1.4 * values.max())
    axes[0].legend()
    figure.savefig(path, dpi=80)
    plt.close(figure)
