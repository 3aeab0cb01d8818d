"""The acoustic medium: what every point of the patient does to sound."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, _
from .checks import as_ijk_to_ras, as_memberships
from .ct import ct_maps
from .labels import LabelTable, as_labels, label_memberships
from .memberships import Box, mix
from .mri import IntensityScale, mri_memberships
from .tissue import CHANNELS, GEL, Tissue, tissue_properties

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Bool, Float

Volume = np.ndarray | Tensor


@runtime_checkable
class Samplable(Protocol):
    """What rays need of a medium: its four channels at points, (..., 3) in mm to (4, ...)."""

    def sample(self, points: Float[Tensor, "*shape 3"], /) -> Float[Tensor, "4 *shape"]: ...


@dataclass(frozen=True)
class SampledMedium:
    """The values of a medium at one set of points, in the renderer's place of an `AcousticMedium`: (4, *points)."""

    values: Float[Tensor, "4 *points"]

    def sample(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "4 *points"]:
        return self.values


class AcousticMedium:
    """Impedance, attenuation and scattering of a patient on a voxel grid, with coupling gel around it.

    Everything sampled is differentiable to the points and to the maps. The maps are read when the medium is built:
    build it again after changing them.

    Args:
        maps: (4, K, J, I), channels as in `CHANNELS`: impedance in MRayl; attenuation a and exponent b, so that sound
            of f MHz loses a * f**b dB/cm; scattering, a linear amplitude relative to white matter (0 dB = 1.0).
        ijk_to_ras: (4, 4), voxel centre (i, j, k, 1) to RAS mm.
        background: (4,), the channels' values outside of the grid; None means `GEL`.

    Raises:
        InputError: for maps of another shape or type, and a matrix that cannot be inverted.
    """

    def __init__(self, maps: Float[Tensor, "4 k j i"], ijk_to_ras: Volume, background: Tensor | None = None):
        if maps.ndim != 4 or maps.shape[0] != len(CHANNELS) or min(maps.shape[1:]) < 2:
            raise InputError(
                _("The maps of a medium must have shape (4, K, J, I), but theirs is {shape}."), shape=tuple(maps.shape)
            )
        if not maps.is_floating_point():
            raise InputError(_("The maps of a medium must be floating-point numbers, not {dtype}."), dtype=maps.dtype)
        self._background = maps.new_tensor(GEL) if background is None else background.to(maps)
        if self._background.shape != (len(CHANNELS),):
            raise InputError(
                _("The background needs {count} values, not {shape}."),
                count=len(CHANNELS),
                shape=tuple(self._background.shape),
            )
        # Only the difference from the background is kept, so that zero padding gives the background outside.
        contrast = (maps - self._background[:, None, None, None])[None]
        # The four channels of a voxel side by side: one cache line per corner instead of four.
        self._contrast = contrast.contiguous(memory_format=torch.channels_last_3d)
        self._ijk_to_ras = as_ijk_to_ras(ijk_to_ras)
        self._ras_to_grid = _ras_to_grid(self._ijk_to_ras, maps.shape[1:])

    @classmethod
    def from_ct(
        cls,
        hu: Volume,
        ijk_to_ras: Volume,
        *,
        scanner: str | tuple[float, float] = "ge-standard",
        mask: Volume | None = None,
        outside: str = "gel",
        denoised: bool = True,
    ) -> AcousticMedium:
        """The medium of a CT; differentiable to hu.

        Args:
            hu: (K, J, I), Hounsfield units.
            ijk_to_ras: (4, 4), voxel centre to RAS mm.
            scanner: the line from HU to the speed in skull, a name of `ct.SCANNERS` or (slope, intercept).
            mask: where the patient is; gel elsewhere (needed for images that were masked with another value than air).
            outside: without a mask, air around the patient becomes "gel" or stays "air"; air inside always stays.
            denoised: even tissue is smoothed by as much as the scan is noisy, edges only from voxel to voxel
                (`soften`), and fluid gets the impedance of 0 HU; False takes every number as it is.

        Raises:
            InputError: for a volume that is empty, constant, not 3-D or not finite, and for other bad arguments.
        """
        matrix = as_ijk_to_ras(ijk_to_ras)
        steps = matrix[:3, :3] / matrix[:3, :3].norm(dim=0)
        maps = ct_maps(
            hu,
            scanner=scanner,
            mask=mask,
            outside=outside,
            denoised=denoised,
            spacing_mm=spacing_kji(matrix),
            axial=2 - int(steps[2].abs().argmax()),
        )
        return cls(maps, matrix)

    @classmethod
    def from_mri(
        cls,
        t1: Volume,
        ijk_to_ras: Volume,
        mask: Volume | None = None,
        *,
        mapping: str | Path | Callable[[Tensor], Tensor] | None = None,
        contrast: str = "t1",
        scale: IntensityScale | None = None,
        sulci: Tensor | None = None,
        tissues: Mapping[str, Tissue] | None = None,
    ) -> AcousticMedium:
        """The medium of an MRI of the head: impedance by the network, attenuation and scattering by memberships.

        In a whole head skull and fluid are both dark and look alike to sound: give a brain mask, or start the image
        below the skull. Differentiable to t1 with scale and sulci held.

        Args:
            t1: (K, J, I), T1-weighted, or T2-weighted with `contrast`.
            ijk_to_ras: (4, 4), voxel centre to RAS mm.
            mask: brain or skin; gel outside. None finds the head, or the stripped brain, by itself.
            mapping: normalised intensity to MRayl: None for the weights shipped, a file of weights, or a function.
            contrast: "t1", or "t2" with bright fluid.
            scale: from `fit_intensity_scale`; None fits it to this image.
            sulci: (K, J, I), the fraction of each voxel that is fluid between gyri and so bright; None finds it.
            tissues: by name, in place of the table's csf, sulcus, grey and white matter.

        Raises:
            InputError: as `from_ct`.
        """
        matrix = as_ijk_to_ras(ijk_to_ras)
        memberships = mri_memberships(
            t1,
            mask,
            mapping=mapping,
            contrast=contrast,
            scale=scale,
            sulci=sulci,
            tissues=tissues,
            spacing_mm=spacing_kji(matrix),
        )
        return cls._within(memberships.maps(), matrix, memberships.shape, memberships.box)

    @classmethod
    def from_labels(
        cls,
        labels: Volume,
        table: LabelTable,
        ijk_to_ras: Volume,
        *,
        antialias: bool = True,
        elsewhere: AcousticMedium | None = None,
    ) -> AcousticMedium:
        """The medium of a segmentation.

        Args:
            labels: (K, J, I), whole numbers.
            table: {value: name or `Tissue`}, the same as pairs, or a name of `tissue.LABEL_TABLES` for a public model.
                Label 0 is gel unless the table says otherwise.
            ijk_to_ras: (4, 4), voxel centre to RAS mm.
            antialias: soften the steps between labels (Gaussian of 0.7 voxels).
            elsewhere: a medium on the same grid, say of the CT that was segmented, to be kept at label 0.

        Raises:
            InputError: naming the labels without a tissue, and for a volume that is no label volume.
        """
        under = None if elsewhere is None else elsewhere.maps
        if under is not None and tuple(under.shape[1:]) != tuple(np.shape(labels)):
            raise InputError(_("The segmentation and the medium under it have different grids; resample one of them."))
        memberships = label_memberships(labels, table, antialias=antialias)
        return cls(memberships.maps(under, None if under is None else as_labels(labels) == 0), ijk_to_ras)

    @classmethod
    def from_memberships(
        cls,
        memberships: Float[Volume, "c k j i"],
        tissues: Sequence[str | Tissue] | Float[Tensor, "c 4"],
        ijk_to_ras: Volume,
    ) -> AcousticMedium:
        """The medium of soft tissue memberships; differentiable to them and to the tissues' values.

        Args:
            memberships: (C, K, J, I), 0 to 1, one per tissue; what they leave to 1 is gel.
            tissues: names, `Tissue`s, or the channels' values themselves, (C, 4).
            ijk_to_ras: (4, 4), voxel centre to RAS mm.

        Raises:
            InputError: if the shapes do not fit or the memberships are no fractions.
        """
        fractions, properties = as_memberships(memberships), tissue_properties(tissues)
        if properties.shape != (fractions.shape[0], len(CHANNELS)):
            raise InputError(
                _("{count} memberships need as many tissues, but {given} were given."),
                count=len(fractions),
                given=len(properties),
            )
        return cls(mix(fractions, properties), ijk_to_ras)

    @classmethod
    def _within(
        cls, maps: Float[Tensor, "4 k j i"], ijk_to_ras: Tensor, shape: Sequence[int], box: Box
    ) -> AcousticMedium:
        """A medium on a grid of `shape` that is gel but for its maps in `box`."""
        medium = cls(maps, ijk_to_ras)
        # Channels last, and memory that is zero is not touched until it is read.
        contrast = maps.new_zeros(1, *shape, len(CHANNELS)).permute(0, 4, 1, 2, 3)
        contrast[(slice(None), slice(None), *box)] = medium._contrast
        medium._contrast, medium._ras_to_grid = contrast, _ras_to_grid(medium._ijk_to_ras, shape)
        return medium

    @property
    def maps(self) -> Float[Tensor, "4 k j i"]:
        """The four maps, (4, K, J, I)."""
        return self._contrast[0] + self._background[:, None, None, None]

    @property
    def background(self) -> Float[Tensor, "4"]:
        """The channels' values outside of the grid, (4,)."""
        return self._background

    @property
    def ijk_to_ras(self) -> Float[Tensor, "4 4"]:
        """Voxel centre (i, j, k, 1) to RAS mm, (4, 4), float64 on the CPU."""
        return self._ijk_to_ras

    @property
    def device(self) -> torch.device:
        return self._contrast.device

    @property
    def dtype(self) -> torch.dtype:
        return self._contrast.dtype

    def to(self, *args, **kwargs) -> AcousticMedium:
        """The same medium on another device or with another dtype, arguments as `torch.Tensor.to` takes them."""
        other = object.__new__(AcousticMedium)
        other._contrast = self._contrast.to(*args, **kwargs)
        other._background = self._background.to(*args, **kwargs)
        other._ijk_to_ras = self._ijk_to_ras
        other._ras_to_grid = self._ras_to_grid
        return other

    def sample(self, points_ras: Float[Tensor, "*shape 3"]) -> Float[Tensor, "4 *shape"]:
        """Trilinear values of the four channels at RAS points in mm, (..., 3) to (4, ...)."""
        shape = points_ras.shape[:-1]
        matrix = self._ras_to_grid.to(points_ras)
        grid = (points_ras.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).to(self._contrast)
        values = _grid_sample(self._contrast, grid) + self._background[:, None]
        return values.reshape(len(CHANNELS), *shape)

    def contains(self, points_ras: Float[Tensor, "*shape 3"]) -> Bool[Tensor, "*shape"]:
        """Whether RAS points, (..., 3), lie inside of the voxel grid."""
        matrix = self._ras_to_grid.to(points_ras)
        return ((points_ras @ matrix[:3, :3].T + matrix[:3, 3]).abs() <= 1).all(-1)

    def overlaps(self, points_ras: Float[Tensor, "*shape 3"]) -> float:
        """The fraction, 0 to 1, of RAS points, (..., 3), that lie inside of the voxel grid."""
        return self.contains(points_ras.detach()).double().mean().item()

    def bounds_ras(self) -> Float[Tensor, "8 3"]:
        """The eight corners of the voxel grid (outer faces of the voxels), RAS mm, (8, 3), float64."""
        ends = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in reversed(self._contrast.shape[2:])]
        return torch.cartesian_prod(*ends) @ self._ijk_to_ras[:3, :3].T + self._ijk_to_ras[:3, 3]


def spacing_kji(ijk_to_ras: Tensor) -> list[float]:
    """Voxel size in mm along k, j, i."""
    return ijk_to_ras[:3, :3].norm(dim=0).flip(0).tolist()


def _ras_to_grid(ijk_to_ras: Tensor, shape: Sequence[int]) -> Tensor:
    """RAS mm to the coordinates of `grid_sample` (align_corners=False), fused into one float64 4x4."""
    size = ijk_to_ras.new_tensor([shape[2], shape[1], shape[0]])
    ijk_to_grid = torch.diag(torch.cat([2 / size, size.new_ones(1)]))
    ijk_to_grid[:3, 3] = 1 / size - 1
    return ijk_to_grid @ torch.linalg.inv(ijk_to_ras)


def _grid_sample(volume: Float[Tensor, "1 c k j i"], grid: Float[Tensor, "n 3"]) -> Float[Tensor, "c n"]:
    """Trilinear values at grid coordinates; zero outside."""
    count, channels = grid.shape[0], volume.shape[1]
    batch = 1
    # The CPU kernel uses one thread per batch item. Its gradient to the volume is one volume per item, hence the test.
    if volume.device.type == "cpu" and not (volume.requires_grad and torch.is_grad_enabled()):
        batch = max(1, min(torch.get_num_threads(), count // 4096))
    padding = -count % batch
    if padding:
        grid = torch.cat([grid, grid.new_zeros(padding, 3)])
    values = F.grid_sample(
        volume.expand(batch, -1, -1, -1, -1),
        grid.view(batch, 1, 1, grid.shape[0] // batch, 3),
        padding_mode="zeros",
        align_corners=False,
    )
    return values.view(batch, channels, grid.shape[0] // batch).transpose(0, 1).reshape(channels, -1)[:, :count]
