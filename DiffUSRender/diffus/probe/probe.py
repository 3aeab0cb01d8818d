"""Linear, convex and phased arrays: rays, sample points and the slice, in millimetres of the probe frame.

Probe frame: origin at the centre of the transducer face, x lateral (towards the marked side), y depth, z elevation.
A convex array of radius R has its apex, the centre of its circle, at y = -R; a phased array has it at the face.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch
from torch import Tensor

from ..errors import InputError, _
from ..settings import ArraySettings, ConvexSettings, LinearSettings, PhasedSettings, check_settings
from .beam import FWHM_PER_SIGMA, Beam

if TYPE_CHECKING:
    from jaxtyping import Float

SPEED_OF_SOUND_MM_PER_US = 1.54  # what scanners assume: mm/us, so that a wavelength in mm is this over MHz
DEFAULT_SLICE_PIXELS = 512
MAX_SLICE_PIXELS = 4096
CHANNELS = 64  # elements that take part at most, where the aperture is not given
# Of a curved face that serves a ray: an outer ray has elements on one side only, and those far round look elsewhere.
FACE_FRACTION = 0.7


def element_acceptance_rad(wavelengths: float) -> float:
    """Standard deviation of the directivity sinc(w sin t) cos t of an element w wavelengths wide, about t = 0."""
    return (math.pi**2 * wavelengths**2 / 3 + 1) ** -0.5


def pixel_centres(rows: int, columns: int, pixel_to_probe: Float[Tensor, "4 4"]) -> Float[Tensor, "rows columns 2"]:
    """Probe-plane (x, y) mm of the pixel centres of an image, (rows, columns, 2), float64."""
    row, column = torch.meshgrid(
        torch.arange(rows, dtype=torch.float64), torch.arange(columns, dtype=torch.float64), indexing="ij"
    )
    return torch.stack([column, row], -1) @ pixel_to_probe[:2, :2].T + pixel_to_probe[:2, 3]


@dataclass(frozen=True)
class SliceGeometry:
    """Pixel grid of a slice in the probe plane; `pixel_to_probe` maps pixel centres (column, row, 0) to probe mm."""

    rows: int
    columns: int
    mm_per_pixel: float
    pixel_to_probe: Float[Tensor, "4 4"]

    def pixel_centres(self) -> Float[Tensor, "rows columns 2"]:
        """Probe-plane (x, y) mm of every pixel centre, (rows, columns, 2), float64."""
        return pixel_centres(self.rows, self.columns, self.pixel_to_probe)


@dataclass(frozen=True, kw_only=True)
class Probe(ArraySettings, ABC):
    """What every array does; use `ConvexProbe`, `LinearProbe` or `PhasedProbe`.

    Args:
        frequency_mhz, depth_mm, focus_mm, ...: `diffus.settings.ArraySettings` declares them with units and ranges.
            Those that are declared `fitted` may be 0-d tensors, to be fitted by gradient.

    Raises:
        InputError: at construction, for a value that is not a number or out of its range.
    """

    type: ClassVar[str] = ""
    pitch_wavelengths: ClassVar[float] = 1.0  # of the elements, where the aperture is not given

    def __post_init__(self) -> None:
        check_settings(self)
        if self.mm_per_pixel is not None:
            pixels = max(self._slice_size_mm()) / self.mm_per_pixel
            if not 8 <= pixels <= MAX_SLICE_PIXELS:
                raise InputError(
                    _(
                        "mm_per_pixel {mm_per_pixel:g} makes the longer side of the slice {pixels:.0f} pixels; "
                        "choose a value that gives 8 to {MAX_SLICE_PIXELS}."
                    ),
                    mm_per_pixel=self.mm_per_pixel,
                    pixels=pixels,
                    MAX_SLICE_PIXELS=MAX_SLICE_PIXELS,
                )

    # --- the array's shape, per type

    @abstractmethod
    def ray_geometry(self) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
        """The rays in the probe frame.

        Returns:
            Origins on the transducer face, mm, and unit directions, (rays, 3) each.
        """

    @abstractmethod
    def lateral_spacing_mm(self) -> Float[Tensor, " samples"]:
        """Distance between neighbouring rays along the arc, mm, (samples,)."""

    @abstractmethod
    def polar_coordinates(self, xy: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        """Where points of the probe plane lie in the polar image; the inverse of `sample_points`.

        Args:
            xy: mm, (..., 2).

        Returns:
            Fractional (ray, sample) indices, (..., 2); outside of [0, rays-1] x [0, samples-1] outside of the fan.
        """

    @abstractmethod
    def plane_points(
        self, ray: Float[Tensor, "*points"], sample: Float[Tensor, "*points"]
    ) -> Float[Tensor, "*points 2"]:
        """Points of the probe plane, (..., 2) mm, at fractional ray and sample indices; inverse of `polar_coordinates`.

        Indices beyond the fan go on as within it.
        """

    @abstractmethod
    def outline(self, n: int = 64) -> Float[Tensor, "m 2"]:
        """The fan's polygon.

        Args:
            n: points on every arc.

        Returns:
            Corners in probe-plane mm, (m, 2), not closed.
        """

    @abstractmethod
    def _face_mm(self) -> float:
        """Widest aperture that the face holds, mm."""

    @abstractmethod
    def _box_mm(self) -> tuple[float, float, float]:
        """Half width, least y and greatest y of the fan, mm."""

    # --- what follows from it

    @property
    def sample_spacing_mm(self) -> float:
        """Distance between samples along a ray; the first lies on the face, the last at `depth_mm`."""
        return self.depth_mm / (self.samples - 1)

    @property
    def wavelength_mm(self) -> float | Tensor:
        """Wavelength at 1540 m/s, mm."""
        return SPEED_OF_SOUND_MM_PER_US / self.frequency_mhz

    @property
    def largest_aperture_mm(self) -> float | Tensor:
        """The widest active aperture, mm: that given, or 64 elements, or what the face holds."""
        if self.aperture_mm is not None:
            return self.aperture_mm
        channels = CHANNELS * self.pitch_wavelengths * self.wavelength_mm
        return channels if channels < self._face_mm() else self._face_mm()

    @property
    def beam(self) -> Beam:
        """The two-way beam, by which kernels, slice thickness and gain over depth are known."""
        return Beam(
            wavelength_mm=self.wavelength_mm,
            focus_mm=self.focus_mm,
            transmit_f_number=self.transmit_f_number,
            receive_f_number=self.f_number,
            elevation_mm=self.elevation_mm,
            elevation_focus_mm=self.focus_mm if self.elevation_focus_mm is None else self.elevation_focus_mm,
            aperture_mm=self.largest_aperture_mm,
            radius_mm=self.curvature_mm,
            acceptance_rad=element_acceptance_rad(self.pitch_wavelengths),
        )

    def depths_mm(self) -> Float[Tensor, " samples"]:
        """Distance of every sample from the transducer face along its ray, (samples,), mm."""
        return torch.linspace(0.0, self.depth_mm, self.samples, dtype=torch.float64)

    def sample_points(self, seed: int = 0) -> tuple[Float[Tensor, "subrays rays samples 3"], Float[Tensor, " subrays"]]:
        """Where the sub-rays sample the tissue, and how much each counts; S = elevation layers x rays per line.

        The elevation layers are the Gauss-Hermite nodes of the elevational beam (Gaussian of FWHM `elevation_mm` at
        its focus, wider elsewhere), so that the weighted sum over the layers is the beam's average, exact for
        polynomials of degree 2 layers - 1.
        Further rays per line fill the gap between neighbouring rays, at seeded places within half of it, and jitter in
        elevation; the first of each layer is not shifted. The beam itself blurs what they sample.

        Args:
            seed: of the draws.

        Returns:
            Points (S, rays, samples, 3), probe-frame mm, and weights (S,) that sum to 1; float64, CPU.
        """
        nodes, weights = np.polynomial.hermite_e.hermegauss(self.elevation_layers)
        sigma = self.elevation_mm / FWHM_PER_SIGMA
        elevation = torch.from_numpy(nodes) * sigma
        weights = torch.from_numpy(weights / weights.sum())

        generator = torch.Generator().manual_seed(seed)
        shape = (self.elevation_layers, self.rays_per_line, self.rays)
        aside = torch.rand(shape, generator=generator, dtype=torch.float64) - 0.5
        jitter = torch.randn(shape, generator=generator, dtype=torch.float64) * (sigma / self.elevation_layers)
        aside[:, 0] = jitter[:, 0] = 0.0
        # The layers already make up the slice thickness: between them the jitter only fills the gaps.
        z = (elevation[:, None, None] + jitter)[..., None].expand(*shape, self.samples)
        if self.elevation_layers * self.rays_per_line > 1:
            z = z * (self.beam.elevation_sigma_mm(self.depths_mm()) / sigma)
        ray = (aside + torch.arange(self.rays))[..., None].expand(*shape, self.samples)
        plane = self.plane_points(ray, torch.arange(self.samples, dtype=torch.float64).expand_as(ray))
        points = torch.cat([plane, z[..., None]], -1)
        subrays = self.elevation_layers * self.rays_per_line
        return points.reshape(subrays, self.rays, self.samples, 3), weights.repeat_interleave(
            self.rays_per_line
        ) / self.rays_per_line

    def slice_geometry(self) -> SliceGeometry:
        """The smallest pixel grid around the fan: x right is the marked side, y down is depth, x = 0 in the middle."""
        width, height = self._slice_size_mm()
        spacing = self.mm_per_pixel or max(width, height) / (DEFAULT_SLICE_PIXELS - 1)
        columns = math.ceil(width / spacing - 1e-6) + 1
        rows = math.ceil(height / spacing - 1e-6) + 1
        pixel_to_probe = torch.diag(torch.tensor([spacing, spacing, spacing, 1.0], dtype=torch.float64))
        pixel_to_probe[0, 3] = -spacing * (columns - 1) / 2
        pixel_to_probe[1, 3] = self._box_mm()[1]
        return SliceGeometry(rows, columns, spacing, pixel_to_probe)

    def _slice_size_mm(self) -> tuple[float, float]:
        half_width, top, bottom = self._box_mm()
        return 2.0 * half_width, bottom - top

    @property
    def curvature_mm(self) -> float:
        """Radius of the array itself; infinite where it is flat."""
        return math.inf


class _SectorProbe(Probe):
    """Rays that diverge from one apex, `radius_mm` behind the middle of the face."""

    radius_mm: float
    fov_deg: float

    def angles_rad(self) -> Float[Tensor, " rays"]:
        """Angle of every ray from the depth axis, (rays,), from -fov/2 to fov/2, positive towards the marked side."""
        half = math.radians(self.fov_deg) / 2
        return torch.linspace(-half, half, self.rays, dtype=torch.float64)

    def ray_geometry(self) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
        angles = self.angles_rad()
        directions = torch.stack([angles.sin(), angles.cos(), torch.zeros_like(angles)], -1)
        apex = directions.new_tensor([0.0, -self.radius_mm, 0.0])
        return apex + self.radius_mm * directions, directions

    def lateral_spacing_mm(self) -> Float[Tensor, " samples"]:
        return (self.radius_mm + self.depths_mm()) * math.radians(self.fov_deg) / (self.rays - 1)

    def polar_coordinates(self, xy: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        x, y = xy[..., 0], xy[..., 1] + self.radius_mm
        ray = (torch.atan2(x, y) / math.radians(self.fov_deg) + 0.5) * (self.rays - 1)
        sample = (torch.hypot(x, y) - self.radius_mm) / self.sample_spacing_mm
        return torch.stack([ray, sample], -1)

    def plane_points(
        self, ray: Float[Tensor, "*points"], sample: Float[Tensor, "*points"]
    ) -> Float[Tensor, "*points 2"]:
        angle = (ray / (self.rays - 1) - 0.5) * math.radians(self.fov_deg)
        radius = self.radius_mm + sample * self.sample_spacing_mm
        return torch.stack([radius * angle.sin(), radius * angle.cos() - self.radius_mm], -1)

    def outline(self, n: int = 64) -> Float[Tensor, "m 2"]:
        half = math.radians(self.fov_deg) / 2
        angles = torch.linspace(-half, half, n, dtype=torch.float64)
        arc = torch.stack([angles.sin(), angles.cos()], -1)
        apex = arc.new_tensor([0.0, -self.radius_mm])
        face = apex + self.radius_mm * arc if self.radius_mm else apex[None]
        return torch.cat([face, (apex + (self.radius_mm + self.depth_mm) * arc).flip(0)])

    def _box_mm(self) -> tuple[float, float, float]:
        half = math.radians(self.fov_deg) / 2
        return (self.radius_mm + self.depth_mm) * math.sin(half), self.radius_mm * (math.cos(half) - 1), self.depth_mm


@dataclass(frozen=True)
class ConvexProbe(ConvexSettings, _SectorProbe):
    """Curved array with its apex behind the face, at y = -radius_mm."""

    type: ClassVar[str] = "convex"

    @property
    def curvature_mm(self) -> float:
        return self.radius_mm

    def _face_mm(self) -> float:
        return FACE_FRACTION * 2 * self.radius_mm * math.sin(math.radians(self.fov_deg) / 2)


@dataclass(frozen=True)
class PhasedProbe(PhasedSettings, _SectorProbe):
    """Steered sector with its apex at the centre of the face."""

    type: ClassVar[str] = "phased"
    radius_mm: ClassVar[float] = 0.0
    pitch_wavelengths: ClassVar[float] = 0.5  # finer, that it may steer

    def _face_mm(self) -> float:
        return math.inf


@dataclass(frozen=True)
class LinearProbe(LinearSettings, Probe):
    """Flat array with parallel rays."""

    type: ClassVar[str] = "linear"

    def ray_geometry(self) -> tuple[Float[Tensor, "rays 3"], Float[Tensor, "rays 3"]]:
        origins = torch.zeros(self.rays, 3, dtype=torch.float64)
        origins[:, 0] = torch.linspace(-self.width_mm / 2, self.width_mm / 2, self.rays, dtype=torch.float64)
        return origins, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64).repeat(self.rays, 1)

    def lateral_spacing_mm(self) -> Float[Tensor, " samples"]:
        return torch.full((self.samples,), self.width_mm / (self.rays - 1), dtype=torch.float64)

    def polar_coordinates(self, xy: Float[Tensor, "*points 2"]) -> Float[Tensor, "*points 2"]:
        ray = (xy[..., 0] / self.width_mm + 0.5) * (self.rays - 1)
        return torch.stack([ray, xy[..., 1] / self.sample_spacing_mm], -1)

    def plane_points(
        self, ray: Float[Tensor, "*points"], sample: Float[Tensor, "*points"]
    ) -> Float[Tensor, "*points 2"]:
        return torch.stack([(ray / (self.rays - 1) - 0.5) * self.width_mm, sample * self.sample_spacing_mm], -1)

    def outline(self, n: int = 64) -> Float[Tensor, "m 2"]:
        half, depth = self.width_mm / 2, self.depth_mm
        return torch.tensor([[-half, 0.0], [half, 0.0], [half, depth], [-half, depth]], dtype=torch.float64)

    def _face_mm(self) -> float:
        return self.width_mm

    def _box_mm(self) -> tuple[float, float, float]:
        return self.width_mm / 2, 0.0, self.depth_mm
