"""The acoustic medium: what every point of the patient does to sound."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, _
from .checks import as_ijk_to_ras, as_memberships
from .ct import ct_voxels
from .labels import LabelTable, as_labels, label_tissues
from .memberships import Box, MriMemberships
from .mixture import SHEET_CHANNELS, Mixture, sharpen, sharpening_gain, sheets_at
from .mri import IntensityScale, mri_memberships
from .tissue import CHANNELS, GEL, Tissue, tissue_properties
from .unevenness import TEXTURE_DB
from .vessels import with_vessels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from jaxtyping import Bool, Float

Volume = np.ndarray | Tensor


@runtime_checkable
class Samplable(Protocol):
    """What rays need of a medium: its channels at points, (..., 3) in mm to (4, ...), or (6, ...) with sheets."""

    def sample(self, points: Float[Tensor, "*shape 3"], /) -> Float[Tensor, "channels *shape"]: ...


@dataclass(frozen=True)
class SampledMedium:
    """The values of a medium at one set of points, in the renderer's place of an `AcousticMedium`."""

    values: Float[Tensor, "channels *points"]

    def sample(self, points: Float[Tensor, "*points 3"]) -> Float[Tensor, "channels *points"]:
        return self.values


class AcousticMedium:
    """What a patient on a voxel grid does to sound, with coupling gel around it.

    Voxels hold four plain maps, or (`of_fractions`) fractions of tissues, which are sharpened at the points that are
    sampled and mixed there: interfaces are crisp at any sampling. Either may come with *sheets*, thin bright structures
    that no voxel can hold. Everything sampled is differentiable to the points, to maps, fractions and tissue values.
    What is given is read when the medium is built: build it again after changing it.

    Args:
        maps: (4, K, J, I), channels as in `CHANNELS`: impedance in MRayl; attenuation a and exponent b, so that sound
            of f MHz loses a * f**b dB/cm; scattering, a linear amplitude relative to white matter (0 dB = 1.0).
        ijk_to_ras: (4, 4), voxel centre (i, j, k, 1) to RAS mm.
        background: (4,), the channels' values outside of the grid; None means `GEL`.
        sheets: (4, K, J, I), as `sheets.sheet_channels` makes them: the vector to the nearest sheet in RAS mm, and its
            level; None for none.

    Raises:
        InputError: for maps of another shape or type, and a matrix that cannot be inverted.
    """

    _MOVED: ClassVar[tuple[str, ...]] = ("_volume", "_background", "_properties")  # by `to`

    def __init__(
        self,
        maps: Float[Tensor, "4 k j i"],
        ijk_to_ras: Volume,
        background: Tensor | None = None,
        *,
        sheets: Float[Tensor, "4 k j i"] | None = None,
    ):
        if maps.ndim != 4 or maps.shape[0] != len(CHANNELS) or min(maps.shape[1:]) < 2:
            raise InputError(
                _("The maps of a medium must have shape (4, K, J, I), but theirs is {shape}."), shape=tuple(maps.shape)
            )
        if not maps.is_floating_point():
            raise InputError(_("The maps of a medium must be floating-point numbers, not {dtype}."), dtype=maps.dtype)
        background = maps.new_tensor(GEL) if background is None else background.to(maps)
        if background.shape != (len(CHANNELS),):
            raise InputError(
                _("The background needs {count} values, not {shape}."),
                count=len(CHANNELS),
                shape=tuple(background.shape),
            )
        self._keep(as_ijk_to_ras(ijk_to_ras), background, maps=maps, sheets=sheets)

    @classmethod
    def of_fractions(
        cls,
        fractions: Float[Tensor, "c k j i"],
        tissues: Sequence[str | Tissue] | Float[Tensor, "c 4"],
        ijk_to_ras: Volume,
        *,
        elsewhere: Float[Tensor, "4 k j i"] | None = None,
        echogenicity_db: Float[Tensor, "k j i"] | None = None,
        sheets: Float[Tensor, "4 k j i"] | None = None,
        sharp: bool = True,
        within: tuple[Sequence[int], Box] | None = None,
    ) -> AcousticMedium:
        """The medium of fractions of tissues, sharpened and mixed at the points that are sampled.

        Args:
            fractions: (C, k, j, i), 0 to 1, one per tissue.
            tissues: names, `Tissue`s, or the channels' values themselves, (C, 4).
            ijk_to_ras: (4, 4), voxel centre to RAS mm, of the whole grid.
            elsewhere: (4, k, j, i), maps of what the fractions leave to 1, say a CT's; None for gel.
            echogenicity_db: (k, j, i), added to the scattering of every tissue there: its slow texture; None for none.
            sheets: as for the constructor.
            sharp: False mixes the sampled fractions as they are.
            within: the shape (K, J, I) of the whole grid and the box of it that is given; None for all of it.
        """
        medium = object.__new__(cls)
        medium._keep(
            as_ijk_to_ras(ijk_to_ras),
            fractions.new_tensor(GEL),
            fractions=fractions,
            properties=tissue_properties(tissues),
            maps=elsewhere,
            echogenicity_db=echogenicity_db,
            sheets=sheets,
            sharp=sharp,
            within=within,
        )
        return medium

    @classmethod
    def of_memberships(cls, memberships: MriMemberships, ijk_to_ras: Tensor) -> AcousticMedium:
        """The medium of an MRI's memberships on the grid of ijk_to_ras, (4, 4)."""
        return cls.of_fractions(
            memberships.values,
            memberships.properties(),
            ijk_to_ras,
            echogenicity_db=memberships.echogenicity_db,
            sheets=memberships.sheets,
            within=(memberships.shape, memberships.box),
        )

    def _keep(
        self,
        ijk_to_ras: Tensor,
        background: Tensor,
        *,
        fractions: Tensor | None = None,
        properties: Tensor | None = None,
        maps: Tensor | None = None,
        echogenicity_db: Tensor | None = None,
        sheets: Tensor | None = None,
        sharp: bool = False,
        within: tuple[Sequence[int], Box] | None = None,
    ) -> None:
        """Lays what voxels are made of side by side: one cache line per corner of a voxel, in one look-up."""
        parts = [] if fractions is None else [fractions]
        if maps is not None:
            # Only the difference from the background is kept, so that zero padding gives the background outside.
            parts.append(maps - background[:, None, None, None])
        parts += [] if echogenicity_db is None else [echogenicity_db[None].to(parts[0])]
        parts += [] if sheets is None else [sheets.to(parts[0])]
        box_shape = tuple(parts[0].shape[1:])
        shape, box = within or (box_shape, tuple(slice(0, size) for size in box_shape))
        if torch.is_grad_enabled() and any(part.requires_grad for part in parts):
            volume = torch.cat(parts).permute(1, 2, 3, 0)
        else:
            volume = parts[0].new_empty(*box_shape, sum(map(len, parts)))
            torch.cat([part.permute(1, 2, 3, 0) for part in parts], -1, out=volume)
        self._volume = volume.contiguous().permute(3, 0, 1, 2)[None]
        self._properties = None if properties is None else properties.to(background)
        self._tissues = 0 if fractions is None else len(fractions)
        self._has = (maps is not None, echogenicity_db is not None, sheets is not None)
        self._gain = sharpening_gain(math.prod(spacing_kji(ijk_to_ras)) ** (1 / 3)) if sharp else 1
        self._background, self._ijk_to_ras = background, ijk_to_ras
        self._shape, self._box = tuple(shape), box
        self._ras_to_box = _ras_to_grid(ijk_to_ras, box)
        self._ras_to_grid = grid_of(ijk_to_ras, shape)

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
        from .hounsfield import CtMedium

        matrix = as_ijk_to_ras(ijk_to_ras)
        steps = matrix[:3, :3] / matrix[:3, :3].norm(dim=0)
        volume, liquid = ct_voxels(
            hu,
            mask=mask,
            outside=outside,
            denoised=denoised,
            spacing_mm=spacing_kji(matrix),
            axial=2 - int(steps[2].abs().argmax()),
        )
        return CtMedium(volume, liquid, matrix, scanner=scanner, softened=denoised)

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
        segmentation: tuple[Volume, LabelTable] | None = None,
        texture_db: float = TEXTURE_DB,
    ) -> AcousticMedium:
        """The medium of an MRI of the head: its tissues by intensity, their impedance by the network, and its sheets.

        In a whole head skull and fluid are both dark and look alike to sound: give a brain mask, or start the image
        below the skull. Differentiable to t1 with scale, sulci and texture held.

        Args:
            t1: (K, J, I), T1-weighted, or T2-weighted with `contrast`.
            ijk_to_ras: (4, 4), voxel centre to RAS mm.
            mask: brain or skin; gel outside. None finds the head, or the stripped brain, by itself.
            mapping: normalised intensity to MRayl: None for the weights shipped, a file of weights, or a function.
            contrast: "t1", or "t2" with bright fluid.
            scale: from `fit_intensity_scale`; None fits it to this image.
            sulci: (K, J, I), the fraction of each voxel that is fluid between gyri and so bright; None finds it.
            tissues: by name, in place of the table's csf, sulcus, grey and white matter.
            segmentation: labels (K, J, I) on the image's grid and what they are, as `from_labels` takes them, in place
                of what the MRI says there; label 0 leaves it. "falx", "tentorium" and "dura" become sheets, what is
                fluid gets walls, and a tumour is uneven.
            texture_db: standard deviation of the slow texture of grey and white matter; 0 for none.

        Raises:
            InputError: as `from_ct`, and as `from_labels` for the segmentation.
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
            segmentation=segmentation,
            texture_db=texture_db,
            ijk_to_ras=matrix,
        )
        return cls.of_memberships(memberships, matrix)

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
            antialias: smooth slanted borders; else they follow the faces of the voxels.
            elsewhere: a medium on the same grid, say of the CT that was segmented, to be kept at label 0. A CT also
                shows the vessels of a labelled liver, where blood is labelled and differs from it.

        Raises:
            InputError: naming the labels without a tissue, and for a volume that is no label volume.
        """
        from .hounsfield import CtMedium
        from .labelled import LabelMedium

        matrix = as_ijk_to_ras(ijk_to_ras)
        array = as_labels(labels)
        if elsewhere is not None and elsewhere.shape != array.shape:
            raise InputError(_("The segmentation and the medium under it have different grids; resample one of them."))
        tissues, index = label_tissues(array, table, rest=elsewhere is not None)
        if isinstance(elsewhere, CtMedium):
            index = with_vessels(index, tissues, elsewhere.hu, spacing_kji(matrix))
            elsewhere = elsewhere.without(torch.from_numpy(index <= len(tissues)))
        return LabelMedium(index, tissues, matrix, antialias=antialias, under=elsewhere)

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
        return cls.of_fractions(fractions, properties, ijk_to_ras)

    @property
    def maps(self) -> Float[Tensor, "4 k j i"]:
        """The four maps at the voxels, (4, K, J, I): there fractions are mixed as they are."""
        here = self._mixture(self._volume[0], gain=1).mixed(self._properties)[: len(CHANNELS)]
        if here.shape[1:] == self._shape:
            return here
        maps = self._background.view(-1, 1, 1, 1).repeat(1, *self._shape)
        maps[(slice(None), *self._box)] = here
        return maps

    @property
    def shape(self) -> tuple[int, int, int]:
        """(K, J, I) of the voxel grid."""
        return self._shape

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
        return self._volume.device

    @property
    def dtype(self) -> torch.dtype:
        return self._volume.dtype

    def to(self, *args, **kwargs) -> AcousticMedium:
        """The same medium on another device or with another dtype, arguments as `torch.Tensor.to` takes them."""
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        for name in self._MOVED:
            part = self.__dict__.get(name)  # None: not there, or made only when it is asked for
            if part is not None:
                other.__dict__[name] = part.to(*args, **kwargs)
        return other

    def sample(self, points_ras: Float[Tensor, "*shape 3"]) -> Float[Tensor, "channels *shape"]:
        """The channels at RAS points in mm, (..., 3).

        Returns:
            (4, ...), trilinear values of plain maps, or fractions sampled trilinearly, sharpened and mixed. With
            sheets (6, ...): then `sheet_distance_mm`, the distance from the nearest sheet's medial surface, 0 to
            `SHEET_RANGE_MM`, and `sheet_level`, its amplitude at normal incidence relative to white-matter speckle.
        """
        return self.mixture(points_ras).mixed(self._properties)

    def mixture(self, points_ras: Float[Tensor, "*shape 3"]) -> Mixture:
        """What RAS points in mm, (..., 3), are made of; `sample` mixes it with the medium's own tissues."""
        matrix = self._ras_to_box.to(points_ras)
        grid = (points_ras.reshape(-1, 3) @ matrix[:3, :3].T + matrix[:3, 3]).to(self._volume)
        values = grid_sample(self._volume, grid)
        return self._mixture(values.view(len(values), *points_ras.shape[:-1]), self._gain)

    def _mixture(self, values: Float[Tensor, "n *shape"], gain: int) -> Mixture:
        """What sampled voxels mean."""
        count, (plain, textured, sheets) = self._tissues, self._has
        fractions, under = None, values[count : count + len(CHANNELS)] if plain else None
        if count:
            fractions, rest = sharpen(values[:count], gain)
            under = under * rest if plain else None
        return Mixture(
            self._background,
            fractions,
            under,
            values[count + len(CHANNELS) * plain] if textured else None,
            sheets_at(values[-SHEET_CHANNELS:]) if sheets else None,
        )

    def contains(self, points_ras: Float[Tensor, "*shape 3"]) -> Bool[Tensor, "*shape"]:
        """Whether RAS points, (..., 3), lie inside of the voxel grid."""
        matrix = self._ras_to_grid.to(points_ras)
        return ((points_ras @ matrix[:3, :3].T + matrix[:3, 3]).abs() <= 1).all(-1)

    def overlaps(self, points_ras: Float[Tensor, "*shape 3"]) -> float:
        """The fraction, 0 to 1, of RAS points, (..., 3), that lie inside of the voxel grid."""
        return self.contains(points_ras.detach()).double().mean().item()

    def bounds_ras(self) -> Float[Tensor, "8 3"]:
        """The eight corners of the voxel grid (outer faces of the voxels), RAS mm, (8, 3), float64."""
        ends = [torch.tensor([-0.5, n - 0.5], dtype=torch.float64) for n in reversed(self._shape)]
        return torch.cartesian_prod(*ends) @ self._ijk_to_ras[:3, :3].T + self._ijk_to_ras[:3, 3]


def spacing_kji(ijk_to_ras: Tensor) -> list[float]:
    """Voxel size in mm along k, j, i."""
    return ijk_to_ras[:3, :3].norm(dim=0).flip(0).tolist()


def grid_of(ijk_to_ras: Tensor, shape: Sequence[int]) -> Tensor:
    """RAS mm to the coordinates of `grid_sample` (align_corners=False) in a whole grid, one float64 4x4."""
    return _ras_to_grid(ijk_to_ras, tuple(slice(0, size) for size in shape))


def _ras_to_grid(ijk_to_ras: Tensor, box: Box) -> Tensor:
    """RAS mm to the coordinates of `grid_sample` (align_corners=False) in a box of the grid, one float64 4x4."""
    size = ijk_to_ras.new_tensor([b.stop - b.start for b in box[::-1]])
    start = ijk_to_ras.new_tensor([b.start for b in box[::-1]])
    ijk_to_grid = torch.diag(torch.cat([2 / size, size.new_ones(1)]))
    ijk_to_grid[:3, 3] = (1 - 2 * start) / size - 1
    return ijk_to_grid @ torch.linalg.inv(ijk_to_ras)


def grid_sample(volume: Float[Tensor, "1 c k j i"], grid: Float[Tensor, "n 3"]) -> Float[Tensor, "c n"]:
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
