"""CT to acoustic properties: Hounsfield units to density, speed, impedance, attenuation and scattering."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy import ndimage
from torch import Tensor

from ..errors import InputError, _
from ..geometry.filters import soften
from .checks import as_mask, as_volume, require_contrast
from .curves import piecewise_linear
from .enhanced import without_contrast
from .tissue import tissue_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Bool, Float

# Speed in skull = slope * HU + intercept (m/s): Webb et al. 2018, IEEE TUFFC 65(7):1111-1124, tables I and II, 120 kVp
# (GE and Siemens rows without further options).
SCANNERS = {
    "ge-standard": (0.98, 1240.0),
    "ge-bone": (0.75, 1320.0),
    "siemens-standard": (0.58, 1810.0),
    "siemens-bone": (0.81, 1270.0),
}

AIR_HU = -900.0
BONE_BLEND_HU = (200.0, 400.0)
_AIR_BLEND_HU = (AIR_HU, AIR_HU + 50.0)
_EMPTY_HU = -600.0
_RIM_HU = -150.0

# Schneider et al. 1996, Phys Med Biol 41:111-124, in the variable H = HU + 1000: four lines that meet at the knots.
_DENSITY_KNOTS = (0.0, 930.0, 1098.0, 1260.0, 4000.0)
_DENSITY_LINES = ((1.025793, -5.6804), (0.908271, 103.615), (0.510837, 539.998), (0.662537, 348.856))

# What a Hounsfield number most likely is, for attenuation and scattering; in between they change linearly.
_TISSUE_AT_HU = (
    (-1000.0, "air"),
    (AIR_HU, "air"),
    (-850.0, "lung"),
    (-500.0, "lung"),
    (-150.0, "fat"),
    (-50.0, "fat"),
    (20.0, "soft tissue"),
    (200.0, "soft tissue"),
    (500.0, "trabecular bone"),
    (1500.0, "bone"),
    (3000.0, "bone"),
)
# Urine, bile and cerebrospinal fluid: wholly from -10 to 20 HU, not at all beyond -30 and 30.
_FLUID_FRACTION_AT_HU = ((-1000.0, 0.0), (-30.0, 0.0), (-10.0, 1.0), (20.0, 1.0), (30.0, 0.0), (3000.0, 0.0))
_BLOOD_BLEND_HU = (25.0, 40.0)
# Numbers that vary by this beyond noise leave 60 % of the fluid fraction; at a border of fat and muscle it is about 75.
_FLUID_SPREAD_HU = 30.0
_LOCAL_GRID_MM = 2.0


def density_from_hu(hu: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Density in kg/m3, at least that of air (Schneider et al. 1996).

    Args:
        hu: Hounsfield units within [-1000, 3000].
    """
    slope, intercept = _DENSITY_LINES[-1]
    values = [s * knot + c for knot, (s, c) in zip(_DENSITY_KNOTS, _DENSITY_LINES)]
    values.append(slope * _DENSITY_KNOTS[-1] + intercept)
    return piecewise_linear(hu + 1000, _DENSITY_KNOTS, values).clamp(min=1.2)


def speed_from_hu(
    hu: Float[Tensor, "*shape"], scanner: str | tuple[float, float] = "ge-standard"
) -> Float[Tensor, "*shape"]:
    """Speed of sound in m/s.

    Soft tissue by Mast 2000 (ARLO 1:37-42), c = (density + 349) / 0.893; skull by Webb et al. 2018, a line that depends
    on the scanner; blended over 200 to 400 HU.

    Args:
        hu: Hounsfield units within [-1000, 3000].
        scanner: a name of `SCANNERS`, or slope in m/s per HU and intercept in m/s.

    Raises:
        InputError: for a scanner that is not known.
    """
    return _speed(hu, density_from_hu(hu), scanner)


def impedance_from_hu(
    hu: Float[Tensor, "*shape"], scanner: str | tuple[float, float] = "ge-standard"
) -> Float[Tensor, "*shape"]:
    """Impedance in MRayl from Hounsfield units; beyond [-1000, 3000] that of the ends, air at -900 HU and below."""
    hu = hu.clamp(-1000, 3000)
    density = density_from_hu(hu)
    impedance = density * _speed(hu, density, scanner) * 1e-6
    air = torch.full_like(impedance, tissue_table()["air"].impedance_mrayl)
    return torch.lerp(air, impedance, _ramp(hu, *_AIR_BLEND_HU))


def loss_and_scattering_from_hu(
    hu: Float[Tensor, "*shape"], fluid: Float[Tensor, "*shape"]
) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Attenuation, its exponent and scattering.

    Linear between the tissues that the numbers most likely are (air, lung, fat, soft tissue, bone), mixed with fluid.

    Args:
        hu: Hounsfield units.
        fluid: the fraction of fluid, 0 to 1.

    Returns:
        a and b, so that sound of f MHz loses a * f**b dB/cm, and the scattering amplitude.
    """
    hu = hu.clamp(-1000, 3000)
    knots = [knot for knot, _ in _TISSUE_AT_HU]
    columns = list(zip(*(tissue_table()[name].properties for _, name in _TISSUE_AT_HU)))
    solid = [piecewise_linear(hu, knots, column) for column in columns[1:]]
    return tuple(torch.lerp(of_solid, of_fluid, fluid) for of_solid, of_fluid in zip(solid, fluid_from_hu(hu)))


def fluid_from_hu(hu: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], ...]:
    """Attenuation, its exponent and scattering of what is fluid: water, urine or bile, and blood by its number."""
    water, blood = (tissue_table()[name].properties[1:] for name in ("fluid", "blood"))
    is_blood = _ramp(hu, *_BLOOD_BLEND_HU)
    return tuple(of_water + is_blood * (of_blood - of_water) for of_water, of_blood in zip(water, blood))


def local_statistics(
    hu: Float[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> tuple[Float[Tensor, "k j i"], Float[Tensor, "k j i"]]:
    """Mean and variance of the 6 mm, at least three voxels, around every voxel.

    Found on a grid of about 2 mm, whatever the voxels, and interpolated.

    Args:
        hu: (K, J, I), Hounsfield units.
        spacing_mm: along k, j, i.

    Returns:
        Mean in HU and variance in HU^2, (K, J, I) each.
    """
    hu = hu.clamp(-1000, 3000)
    grid = [max(1, min(round(_LOCAL_GRID_MM / step), size // 3)) for step, size in zip(spacing_mm, hu.shape)]
    both = F.avg_pool3d(torch.stack([hu, hu.square()])[None], grid, ceil_mode=True, count_include_pad=False)
    around = [3 if size >= 3 else 1 for size in both.shape[2:]]
    padding = [size // 2 for size in around]
    mean, square = F.avg_pool3d(both, around, stride=1, padding=padding, count_include_pad=False).split(1, 1)
    both = torch.cat([mean, (square - mean.square()).clamp(min=0)], 1)
    # By the factor, not to the size: cells that the border cuts would squeeze all the others.
    k, j, i = hu.shape
    whole = F.interpolate(both, scale_factor=[float(n) for n in grid], mode="trilinear", align_corners=False)[0]
    return whole[:, :k, :j, :i].unbind()


def noise_level(hu: Float[Tensor, "k j i"]) -> Float[Tensor, ""]:
    """Standard deviation of the noise in HU: from the median difference of neighbours in soft tissue (+-150 HU).

    The axis with the least differences counts. Zero for volumes too small to tell.
    """
    levels = []
    for axis in range(3):
        a, b = hu.narrow(axis, 0, hu.shape[axis] - 1), hu.narrow(axis, 1, hu.shape[axis] - 1)
        soft = torch.nonzero(((a.detach().abs() < 150) & (b.detach().abs() < 150)).flatten())[:, 0]
        soft = soft[:: 1 + len(soft) // 200_000]
        if len(soft) < 1000:
            return hu.new_zeros(())
        differences = (a - b).flatten().index_select(0, soft).abs()
        # 1.4826 makes a median a standard deviation; a difference of two voxels has twice the variance of one.
        levels.append(differences.median() * (1.4826 / math.sqrt(2)))
    return torch.stack(levels).min()


def even_tissue(
    hu: Float[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> tuple[Float[Tensor, "k j i"], Float[Tensor, "k j i"]]:
    """The CT without its noise, and where fluid is.

    An adaptive filter after Lee 1980 (IEEE PAMI 2:165-168): each voxel goes to its local mean by (s / variance)^2, at
    most 1, with s = 1.5 times the variance of the noise, so that edges stay. Without it noise would scatter like
    tissue, also in fluid. Fluid has the numbers of water and even surroundings: the border between fat and muscle
    passes the same numbers, but its variance is that of an edge. What is left of the noise in fluid goes too, towards
    the 0 HU of water. Blood with contrast agent (`without_contrast`) is fluid with the numbers of blood.

    Args:
        hu: (K, J, I), Hounsfield units.
        spacing_mm: along k, j, i.

    Returns:
        The filtered CT in HU, and the fraction of fluid, 0 to 1, (K, J, I) each.
    """
    mean, variance = local_statistics(hu, spacing_mm)
    noise = 1.5 * noise_level(hu).square()
    smooth = hu + (noise / (variance + 1e-6)).clamp(max=1).square() * (mean - hu)
    uneven = (variance - noise).clamp(min=0)
    fluid = piecewise_linear(smooth, *zip(*_FLUID_FRACTION_AT_HU)) * torch.exp(uneven / (-2 * _FLUID_SPREAD_HU**2))
    # The majority of the 3x3x3 around: no holes in a bladder, no specks of fluid in fat.
    if min(hu.shape) >= 3:
        fluid = F.avg_pool3d(fluid[None, None], 3, stride=1, padding=1, count_include_pad=False)[0, 0]
        fluid = ((fluid - 0.3) / 0.4).clamp(0, 1)
    smooth, blood = without_contrast(smooth * (1 - fluid), uneven, spacing_mm)
    return smooth, fluid if blood is None else torch.maximum(fluid, blood)


def scanner_line(scanner: str | tuple[float, float]) -> tuple[float, float]:
    """Slope in m/s per HU and intercept in m/s of the speed in skull.

    Raises:
        InputError: if the scanner is not known.
    """
    if isinstance(scanner, str):
        if scanner not in SCANNERS:
            raise InputError(
                _('No scanner is called "{scanner}"; use one of {names}, or (slope, intercept).'),
                scanner=scanner,
                names=", ".join(SCANNERS),
            )
        return SCANNERS[scanner]
    try:
        slope, intercept = (float(number) for number in scanner)
    except (TypeError, ValueError) as error:
        raise InputError(_("A scanner is a name or two numbers: slope in m/s per HU and intercept in m/s.")) from error
    return slope, intercept


def ct_voxels(
    hu: np.ndarray | Tensor,
    *,
    mask: np.ndarray | Tensor | None = None,
    outside: str = "gel",
    denoised: bool = True,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
    axial: int = 0,
) -> tuple[Float[Tensor, "k j i"], Float[Tensor, "k j i"]]:
    """What the voxels of a CT are; arguments and errors as in `AcousticMedium.from_ct`.

    Args:
        spacing_mm: along k, j, i.
        axial: the array's axis across the axial slices.

    Returns:
        Hounsfield units, 0 in gel; and 1 for fluid, 0 for solid tissue, -1 for gel, (K, J, I) each.
    """
    volume = as_volume(hu, "CT")
    require_contrast(volume, "CT")
    if outside not in ("gel", "air"):
        raise InputError(_('What is outside of the patient must be "gel" or "air", not "{outside}".'), outside=outside)
    if mask is not None:
        gel = ~as_mask(mask, volume)
    elif outside == "gel":
        gel = air_around_patient(volume, axial)
    else:
        gel = None
    even, fluid = even_tissue(volume, spacing_mm)
    volume = even if denoised else volume
    if gel is None:
        return volume, fluid
    # The skin's numbers go on into the gel, whose border is softened: a smooth skin without a rim of half-empty voxels.
    return continued(volume, gel), fluid.masked_fill(gel, 0.0) - soften(gel.to(volume))


def continued(hu: Float[Tensor, "k j i"], hole: Bool[Tensor, "k j i"], reach: int = 3) -> Float[Tensor, "k j i"]:
    """Numbers with those of a hole replaced by the mean of what lies around it, as far as `reach` voxels; then 0 HU."""
    weight = (~hole).to(hu)
    hu = hu * weight
    for _voxel in range(reach):
        total, count = _box_sum(hu), _box_sum(weight)
        reached = (weight == 0) & (count > 0)
        hu = torch.where(reached, total / count.clamp(min=1e-6), hu)
        weight = torch.where(reached, 1.0, weight)
    return hu


def _box_sum(volume: Float[Tensor, "k j i"]) -> Float[Tensor, "k j i"]:
    """Sum over the 3x3x3 voxels around each; zeros beyond the border."""
    for axis in range(3):
        rim = [0, 0] * (2 - axis) + [1, 1]
        wide, size = F.pad(volume, rim), volume.shape[axis]
        volume = wide.narrow(axis, 0, size) + wide.narrow(axis, 2, size) + volume
    return volume


def air_around_patient(hu: Float[Tensor, "k j i"], axis: int = 0) -> Bool[Tensor, "k j i"]:
    """Where the air around the patient is, with the rim of half-empty voxels that would be a mirror at the skin.

    In each slice, what is emptier than -600 HU (air, and the foam of the couch), hangs together, reaches the slice's
    border and is air on average lies around the patient. Slice by slice, because the airways lead into the body; and
    lung that reaches the border of a cropped scan is no air on average.

    Args:
        hu: (K, J, I), Hounsfield units.
        axis: of the array, across the axial slices.
    """
    values = hu.detach().cpu().numpy()
    in_plane = np.zeros((3, 3, 3), dtype=bool)
    np.moveaxis(in_plane, axis, 0)[1] = True
    regions, count = ndimage.label(values < _EMPTY_HU, structure=in_plane)
    if count == 0:
        return torch.zeros_like(hu, dtype=torch.bool)
    borders = [np.take(regions, [0, -1], axis=a).ravel() for a in range(3) if a != axis]
    reaching = np.setdiff1d(np.concatenate(borders), [0])
    means = ndimage.mean(np.maximum(values, -1024), regions, reaching)
    is_around = np.zeros(count + 1, dtype=bool)
    is_around[reaching[np.asarray(means) < AIR_HU]] = True
    around = is_around[regions]
    rim = ndimage.binary_dilation(around, iterations=2, mask=values < _RIM_HU)
    return torch.from_numpy(around | rim).to(hu.device)


def _speed(hu: Tensor, density: Tensor, scanner: str | tuple[float, float]) -> Tensor:
    slope, intercept = scanner_line(scanner)
    return torch.lerp((density + 349) / 0.893, slope * hu + intercept, _ramp(hu, *BONE_BLEND_HU))


def _ramp(x: Tensor, low: float, high: float) -> Tensor:
    """0 below `low`, 1 above `high`, linear between."""
    return ((x - low) / (high - low)).clamp(0, 1)
