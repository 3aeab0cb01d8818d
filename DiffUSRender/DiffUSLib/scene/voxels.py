"""From a loaded volume or segmentation to the engine's medium, kept until its voxels or its geometry change."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import slicer
import slicer.util
import vtk
from vtk.util.numpy_support import vtk_to_numpy

from ..engine import engineErrors
from ..errors import GpuMemoryError, RenderError
from ..i18n import _
from ..kinds import Device, MediumKind, TissueTable
from ..torch_support import torchDevice
from .dicom import modality
from .transforms import fromVtk, ijkToRas, isLinearToWorld, nodeToWorld

if TYPE_CHECKING:
    from diffus.medium import AcousticMedium

CT_AIR_HU = -200.0  # only Hounsfield units reach so far below zero
_CT_NAME = re.compile(r"(^|[^a-z])(cb)?ct([^a-z]|$)")
_T2_NAME = re.compile(r"(^|[^a-z0-9])t2w?([^a-z0-9*]|$)")  # FLAIR has dark fluid, as T1


@dataclass(frozen=True)
class Voxels:
    """Voxels (K, J, I), where their centres are in the node's own RAS, and the name of every label (labels only)."""

    array: np.ndarray
    ijkToRas: np.ndarray
    names: dict[int, str] | None = None


def guessKind(node) -> MediumKind:
    """MRI (T1 or T2), CT or labels, from the node's class, its DICOM modality, its voxel range and its name."""
    return explainKind(node)[0]


def explainKind(node) -> tuple[MediumKind, str]:
    """What `guessKind` guesses, and by what, in a few words for the user."""
    if node.IsA("vtkMRMLSegmentationNode") or node.IsA("vtkMRMLLabelMapVolumeNode"):
        return MediumKind.LABELS, _("it holds labels")
    name = (node.GetName() or "").lower()
    mri = MediumKind.MRI_T2 if _T2_NAME.search(name) and "flair" not in name else MediumKind.MRI
    series = modality(node)
    if series == "CT":
        return MediumKind.CT, _("DICOM says CT")
    if series == "MR":
        return mri, _("DICOM says MR")
    image = node.GetImageData()
    if image and image.GetNumberOfPoints() and image.GetScalarRange()[0] < CT_AIR_HU:
        return MediumKind.CT, _("it has Hounsfield units")
    if _CT_NAME.search(name):
        return MediumKind.CT, _("by its name")
    if mri is MediumKind.MRI_T2:
        return mri, _("by its name")
    return mri, _("nothing says otherwise")


def readVoxels(node, kind: MediumKind) -> Voxels:
    """The node's voxels without copying them where possible; raises RenderError if there are none."""
    if node.IsA("vtkMRMLSegmentationNode"):
        if kind is not MediumKind.LABELS:
            raise RenderError(_("A segmentation holds labels: set its kind to Automatic or Segmentation."))
        return _segmentationVoxels(node)
    array = _scalars(node)
    return Voxels(array, ijkToRas(node), _labelNames(node, array) if kind is MediumKind.LABELS else None)


def scalarArray(node) -> np.ndarray | None:
    """The voxels of a volume node, (K, J, I) or with components last, without a copy; None where there are none."""
    image = node.GetImageData()
    if image is None or image.GetNumberOfPoints() == 0 or image.GetPointData().GetScalars() is None:
        return None
    return slicer.util.arrayFromVolume(node)


def isFlat(volume) -> bool:
    """Whether a volume node has one slice only, as a frame of ultrasound has."""
    image = volume.GetImageData()
    return image is not None and image.GetDimensions()[2] == 1


def _scalars(node) -> np.ndarray:
    array = scalarArray(node)
    if array is None:
        raise RenderError(_("The volume '{name}' is empty; load one that has voxels.").format(name=node.GetName()))
    return array


class MediumCache:
    """The medium of the last volume; built again when its voxels, its geometry, its names or its kind change.

    One medium is kept: that of a large volume is hundreds of megabytes.
    """

    def __init__(self) -> None:
        self._key: tuple | None = None
        self._places: list[np.ndarray] = []
        self._medium: AcousticMedium | None = None
        self._refusal = ""

    def medium(
        self,
        node,
        kind: MediumKind,
        mask=None,
        device: Device = Device.CPU,
        added=None,
        tissues: TissueTable = TissueTable.DIFFUS,
    ) -> AcousticMedium:
        """The acoustic medium in the node's own RAS, on a device.

        Args:
            mask: a label map or segmentation node; of an MRI or CT, what lies outside of it is coupling gel.
            added: one whose names are tissues; in an MRI or CT they are what its voxels are made of.
            tissues: whose properties those of an MRI and of labels have.

        Raises:
            RenderError: for a volume that cannot be one, or a device that cannot compute here.
        """
        name = torchDevice(device)
        if kind is MediumKind.AUTO:
            kind = guessKind(node)
        if kind is MediumKind.LABELS:
            mask = added = None
        others = [None if other is None else (other.GetID(), *contentStamp(other)) for other in (mask, added)]
        key = (node.GetID(), kind, name, tissues, *contentStamp(node), *others)
        places = [np.eye(4) if other is None else _toVolume(other, node) for other in (mask, added)]
        # Two transforms that move together do so but for rounding.
        if key != self._key or not np.allclose(places, self._places, atol=1e-3):
            self.clear()  # before building: two media at a time may not fit into memory
            try:
                voxels = readVoxels(node, kind)
                inside = None if mask is None else maskOnVolume(mask, node, voxels)
                known = None if added is None else tissuesOnVolume(added, node, voxels)
                with engineErrors():
                    self._medium = _buildMedium(voxels, kind, inside, known, tissues).to(name)
            except GpuMemoryError:
                raise
            except RenderError as error:
                self._refusal = str(error)  # kept as well: Live must not examine a bad volume again for every pose
            self._key, self._places = key, places
        if self._refusal:
            raise RenderError(self._refusal)
        return self._medium

    def clear(self) -> None:
        """Forgets the medium."""
        self._key = self._medium = None
        self._refusal = ""


def _buildMedium(
    voxels: Voxels, kind: MediumKind, mask: np.ndarray | None, known: Voxels | None, tissues: TissueTable
) -> AcousticMedium:
    from diffus.medium import AcousticMedium, labels_with_tissues, named_tissues

    with engineErrors():
        table = named_tissues(tissues.value)
        if kind is MediumKind.LABELS:
            names = labels_with_tissues(voxels.names, table)
            return AcousticMedium.from_labels(voxels.array, names, voxels.ijkToRas)
        labels = None if known is None else (known.array, labels_with_tissues(known.names, table))
        if kind is MediumKind.CT:
            medium = AcousticMedium.from_ct(voxels.array, voxels.ijkToRas, mask=mask)
            return medium if labels is None else AcousticMedium.from_labels(*labels, voxels.ijkToRas, elsewhere=medium)
        contrast = "t2" if kind is MediumKind.MRI_T2 else "t1"
        return AcousticMedium.from_mri(
            voxels.array, voxels.ijkToRas, mask, contrast=contrast, segmentation=labels, tissues=table
        )


def contentStamp(node) -> tuple:
    """What changes whenever the medium would: modification times of the voxels, geometry, label names."""
    if node.IsA("vtkMRMLSegmentationNode"):
        segmentation = node.GetSegmentation()
        segments = (segmentation.GetNthSegment(n) for n in range(segmentation.GetNumberOfSegments()))
        return tuple((segment.GetName(), _representationTime(segment)) for segment in segments)
    image, colors = node.GetImageData(), _colorNode(node)
    return (image.GetMTime() if image else 0, ijkToRas(node).tobytes(), colors.GetMTime() if colors else 0)


def watchedEvents(node) -> dict[object, tuple]:
    """What to observe, with its events, to know of every change of a volume or segmentation node; nothing of None."""
    moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
    if node is None:
        return {}
    if not node.IsA("vtkMRMLSegmentationNode"):
        # Modified tells of a new IJKToRAS (hardening), and of voxels written in place.
        modified = vtk.vtkCommand.ModifiedEvent
        return {node: (moved, modified, slicer.vtkMRMLVolumeNode.ImageDataModifiedEvent)}
    if (segmentation := node.GetSegmentation()) is None:
        return {node: (moved,)}
    events = (
        segmentation.SourceRepresentationModified,
        segmentation.SegmentModified,
        segmentation.SegmentAdded,
        segmentation.SegmentRemoved,
    )
    return {node: (moved,), segmentation: events}


def _toVolume(labels, volume) -> np.ndarray:
    """From the own RAS of a mask or segmentation to the volume's, (4, 4); RenderError where that is no matrix."""
    source, target = labels.GetParentTransformNode(), volume.GetParentTransformNode()
    if source is target:
        return np.eye(4)
    if not (isLinearToWorld(source) and isLinearToWorld(target)):
        raise RenderError(
            _("'{name}' and the volume hang under different nonlinear transforms; put both under one.").format(
                name=labels.GetName()
            )
        )
    return np.linalg.inv(nodeToWorld(target)) @ nodeToWorld(source)


def maskOnVolume(mask, volume, voxels: Voxels) -> np.ndarray:
    """Where a label map or segmentation node is not empty, on the grid of a volume, by nearest neighbours.

    Args:
        mask: the label map or segmentation node.
        volume: the node whose voxels are `voxels`.

    Returns:
        (K, J, I) bool.

    Raises:
        RenderError: for a mask that is empty there, or that no matrix leads to the volume.
    """
    segmented = mask.IsA("vtkMRMLSegmentationNode")
    found = readVoxels(mask, MediumKind.LABELS) if segmented else Voxels(_scalars(mask), ijkToRas(mask))
    inside = _onGrid(found.array != 0, _toVolume(mask, volume) @ found.ijkToRas, voxels)
    if not inside.any():
        raise RenderError(
            _("The mask '{name}' covers nothing of the volume; choose another.").format(name=mask.GetName())
        )
    return inside


def tissuesOnVolume(added, volume, voxels: Voxels) -> Voxels:
    """The labels of a label map or segmentation node on the grid of a volume, by nearest neighbours; 0 is none.

    Args:
        added: the label map or segmentation node, whose names are tissues.
        volume: the node whose voxels are `voxels`.

    Returns:
        The labels on the volume's grid, and the names of those that occur there.

    Raises:
        RenderError: for one that is empty there, names no tissues, or that no matrix leads to the volume.
    """
    from diffus.medium import tissue_table

    found = readVoxels(added, MediumKind.LABELS)
    labels = _onGrid(found.array, _toVolume(added, volume) @ found.ijkToRas, voxels)
    names = {label: found.names[label] for label in np.unique(labels).tolist() if label in found.names}
    if not names:
        raise RenderError(
            _("The segmentation '{name}' covers nothing of the volume; choose another.").format(name=added.GetName())
        )
    tissues = tissue_table()
    if unknown := [name for name in names.values() if tissues.find(name) is None]:
        raise RenderError(
            _("No tissue is called {unknown}: rename these segments of '{name}'. Tissues are: {known}.").format(
                unknown=", ".join(f"'{name}'" for name in unknown), name=added.GetName(), known=", ".join(tissues)
            )
        )
    return Voxels(labels, voxels.ijkToRas, names)


def _onGrid(array: np.ndarray, toRas: np.ndarray, voxels: Voxels) -> np.ndarray:
    """Values of a volume, (K, J, I), whose voxels `toRas` maps, on the grid of another, by nearest neighbours."""
    from scipy import ndimage

    between = np.linalg.inv(toRas) @ voxels.ijkToRas
    if array.shape == voxels.array.shape and np.allclose(between, np.eye(4), atol=1e-3):
        return array
    return ndimage.affine_transform(  # array indices run k, j, i
        array, between[2::-1, 2::-1], between[2::-1, 3], voxels.array.shape, order=0, mode="grid-constant", cval=0
    )


def _colorNode(node):
    """The colour table of a label map, or None."""
    display = node.GetDisplayNode() if node.IsA("vtkMRMLLabelMapVolumeNode") else None
    return display.GetColorNode() if display else None


def _representationTime(segment) -> int:
    names: list[str] = []
    segment.GetContainedRepresentationNames(names)
    return max((segment.GetRepresentation(name).GetMTime() for name in names), default=0)


def _labelNames(node, array: np.ndarray) -> dict[int, str]:
    """The name of every label of a label map from its colour table."""
    colors = _colorNode(node)
    if colors is None or not np.issubdtype(array.dtype, np.integer):
        raise RenderError(
            _(
                "'{name}' is not a label map with a table of names; import it as a segmentation, "
                "or set its kind to MRI or CT."
            ).format(name=node.GetName())
        )
    labels = np.unique(array)
    return {int(label): colors.GetColorName(int(label)) or "" for label in labels if label != 0}


def _segmentationVoxels(node) -> Voxels:
    """All segments merged into one label volume, labels 1, 2, ... in the order of the segments, later ones on top."""
    segmentation = node.GetSegmentation()
    count = segmentation.GetNumberOfSegments() if segmentation else 0
    if count == 0:
        raise RenderError(
            _("The segmentation '{name}' has no segments; add some or choose another.").format(name=node.GetName())
        )
    source = node if segmentation.ContainsRepresentation(_binaryLabelmap()) else _withLabelmaps(segmentation)
    identifiers, values, names = vtk.vtkStringArray(), vtk.vtkIntArray(), {}
    for n in range(count):
        identifiers.InsertNextValue(segmentation.GetNthSegmentID(n))
        values.InsertNextValue(n + 1)
        names[n + 1] = segmentation.GetNthSegment(n).GetName()
    merged = slicer.vtkOrientedImageData()
    mode = slicer.vtkSegmentation.EXTENT_UNION_OF_SEGMENTS
    source.GenerateMergedLabelmapForAllSegments(merged, mode, None, identifiers, values)
    scalars = merged.GetPointData().GetScalars()
    if scalars is None or scalars.GetRange()[1] == 0:
        raise RenderError(_("The segmentation '{name}' is empty; segment something first.").format(name=node.GetName()))
    array = vtk_to_numpy(scalars).reshape(merged.GetDimensions()[::-1])
    matrix = vtk.vtkMatrix4x4()
    merged.GetImageToWorldMatrix(matrix)
    toRas = fromVtk(matrix)
    toRas[:3, 3] += toRas[:3, :3] @ np.array(merged.GetExtent()[::2])  # the array starts at the extent's corner
    return Voxels(array, toRas, {label: name for label, name in names.items() if (array == label).any()})


def _withLabelmaps(segmentation):
    """A node outside of the scene with a copy of the segments as label maps: the user's node stays as it is."""
    copy = slicer.vtkMRMLSegmentationNode()
    copy.SetAndObserveSegmentation(slicer.vtkSegmentation())
    copy.GetSegmentation().DeepCopy(segmentation)
    if not copy.GetSegmentation().CreateRepresentation(_binaryLabelmap()):
        raise RenderError(
            _("The segments cannot be turned into label maps; create a binary label map in the Segmentations module.")
        )
    return copy


def _binaryLabelmap() -> str:
    return slicer.vtkSegmentationConverter.GetSegmentationBinaryLabelmapRepresentationName()
