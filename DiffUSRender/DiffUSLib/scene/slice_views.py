"""Slice views that are taken over for a while: to show an image in its plane, or to follow the probe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar
from weakref import WeakKeyDictionary

import numpy as np
import slicer
import slicer.util

from .transforms import fromVtk, isLinearToWorld, nodeToWorld, toVtk

MARGIN = 1.08  # field of view over the size of what is shown
SAME_SIZE = 0.01  # relative; sizes that differ by less are those of one image under a tracker's noise
TRANSVERSE_MODE = 6  # of SlicerIGT's volume reslice driver


@dataclass(frozen=True)
class ViewState:
    """How a slice view was found: plane, zoom, identifiers and opacities of its layers, link, and whether in 3-D."""

    sliceToRas: np.ndarray
    fieldOfView: tuple[float, float, float]
    origin: tuple[float, float, float]
    background: str | None = None
    foreground: str | None = None
    label: str | None = None
    foregroundOpacity: float = 0.0
    labelOpacity: float = 1.0
    linked: int = 0
    in3D: int = 0

    @classmethod
    def of(cls, view) -> ViewState:
        """The present state of a slice view."""
        geometry = fromVtk(view.GetSliceToRAS()), view.GetFieldOfView(), view.GetXYZOrigin()
        composite = compositeNode(view)
        if composite is None:
            return cls(*geometry, in3D=view.GetSliceVisible())
        return cls(
            *geometry,
            composite.GetBackgroundVolumeID(),
            composite.GetForegroundVolumeID(),
            composite.GetLabelVolumeID(),
            composite.GetForegroundOpacity(),
            composite.GetLabelOpacity(),
            composite.GetLinkedControl(),
            view.GetSliceVisible(),
        )


class BorrowedView:
    """A slice view that is taken over, and given back as it was found.

    While it is borrowed it is not linked: the other views stay where they are. Several may borrow one view, and let go
    in any order: the last one gives back what the user had.
    """

    _all: ClassVar[WeakKeyDictionary[BorrowedView, None]] = WeakKeyDictionary()  # in the order of taking

    def __init__(self) -> None:
        self.forget()

    @property
    def view(self):
        """The slice view in use, or None."""
        return self._view

    @property
    def found(self) -> ViewState | None:
        """How the view was before it was taken over; None while none is."""
        return self._found

    def take(self, view) -> None:
        """Takes this view over, and gives another one back; nothing happens to the one that is taken already."""
        if self._view is view:
            return
        self.giveBack()
        self._view, self._found = view, ViewState.of(view)
        self._all[self] = None
        if (composite := compositeNode(view)) is not None:
            composite.SetLinkedControl(0)

    def showLayers(self, background, foreground=None, opacity: float = 0.0) -> None:
        """Shows these volume nodes, which have pixels: VTK logs errors for one without."""
        composite = compositeNode(self._view)
        if composite is None:
            return
        layers = background.GetID(), None if foreground is None else foreground.GetID()
        if (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()) != layers:
            composite.SetBackgroundVolumeID(layers[0])
            composite.SetForegroundVolumeID(layers[1])
        composite.SetForegroundOpacity(opacity)
        self._shown = layers

    def showIn3D(self, shown: bool) -> None:
        """Shows the view's plane in the 3-D views, or leaves it there as it was found."""
        self._view.SetSliceVisible(1 if shown else self._found.in3D)

    def showImage(self, imageToWorld: np.ndarray, shape: tuple[int, int]) -> None:
        """Puts the view into the plane of an image: columns to the right, rows down the screen.

        Args:
            imageToWorld: (4, 4), (column, row, 0, 1) to world mm.
            shape: rows and columns.
        """
        size = np.array(shape[::-1])
        if self._plane is None or not np.array_equal(self._plane, imageToWorld):
            placeInPlane(self._view, imageToWorld, (size - 1) / 2)
            self._plane = imageToWorld
        self.zoom(size * np.linalg.norm(imageToWorld[:3, :2], axis=0))

    def zoom(self, sizeMm) -> None:
        """Zooms to this width and height where they are new: the user's own zoom stays from then on."""
        if self._size is None or not np.allclose(self._size, sizeMm, rtol=SAME_SIZE):
            zoomTo(self._view, sizeMm)
            self._size = np.array(sizeMm)

    def giveBack(self) -> None:
        """Leaves the view as it was found, but for other layers that the user has chosen meanwhile.

        A view that was taken over by another one since stays as it is: that one gives back what was found here.
        """
        borrowers = [borrowed for borrowed in self._all if borrowed.view is self._view]
        later = borrowers[borrowers.index(self) + 1 :] if self._view is not None else []
        if later:
            later[0]._found = self._found
        elif self._view is not None and self._view.GetScene() is not None:
            self._giveLayersBack()
            self._view.GetSliceToRAS().DeepCopy(toVtk(self._found.sliceToRas))
            self._view.SetXYZOrigin(*self._found.origin)
            self._view.SetFieldOfView(*self._found.fieldOfView)
            self._view.SetSliceVisible(self._found.in3D)
            self._view.UpdateMatrices()
        self.forget()

    def forget(self) -> None:
        """Drops the view without touching it, for a scene that closes."""
        self._all.pop(self, None)
        self._view = self._found = self._shown = self._plane = self._size = None

    def _giveLayersBack(self) -> None:
        composite, found, scene = compositeNode(self._view), self._found, self._view.GetScene()
        if composite is None:
            return
        # A volume that has gone since must not come back as whatever volume gets its identifier next.
        background, foreground, label = (
            name if name and scene.GetNodeByID(name) else None
            for name in (found.background, found.foreground, found.label)
        )
        shown = self._shown or (found.background, found.foreground)
        if composite.GetBackgroundVolumeID() in (shown[0], None):
            composite.SetBackgroundVolumeID(background)
        if composite.GetForegroundVolumeID() in (shown[1], None):
            composite.SetForegroundVolumeID(foreground)
            composite.SetForegroundOpacity(found.foregroundOpacity)
        if composite.GetLabelVolumeID() in (found.label, None):
            composite.SetLabelVolumeID(label)
            composite.SetLabelOpacity(found.labelOpacity)
        composite.SetLinkedControl(found.linked)


class SliceViewDriver:
    """Keeps a slice view in the probe's plane: by SlicerIGT's volume reslice driver if it is there, else by itself."""

    def __init__(self) -> None:
        self._borrowed = BorrowedView()
        self._probe = None
        self._centre = np.zeros(2)
        self._tag: int | None = None
        self._resliceLogic = None

    @property
    def active(self) -> bool:
        """Whether a view follows the probe."""
        return self._borrowed.view is not None

    def start(
        self, sliceViewNode, probeNode, simulatedSlice, sizeMm: np.ndarray, centre: np.ndarray, in3D=False
    ) -> None:
        """Makes `sliceViewNode` show `simulatedSlice` in the probe's plane from now on.

        The volume that was the view's background becomes its foreground, hidden: the view's fade slider brings it up.

        Args:
            sizeMm: (2,), width and height that the view shows.
            centre: (2,), lateral and depth of the view's middle, mm in the probe's plane.
            in3D: whether the 3-D views show it too.
        """
        self._release()
        self._borrowed.take(sliceViewNode)
        self._probe, self._centre = probeNode, centre
        self._show(simulatedSlice)
        self._borrowed.zoom(sizeMm)
        self._borrowed.showIn3D(in3D)
        self._follow()
        self._resliceLogic = _startResliceDriver(sliceViewNode, simulatedSlice)
        if self._resliceLogic is None:
            event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            self._tag = probeNode.AddObserver(event, lambda caller, event: self._follow())

    def stop(self) -> None:
        """Gives the view back as it was found."""
        self._release()
        self._borrowed.giveBack()

    def _release(self) -> None:
        if self._tag is not None:
            self._probe.RemoveObserver(self._tag)
        if self._resliceLogic is not None:
            self._resliceLogic.SetDriverForSlice("", self._borrowed.view)
        self._tag = self._resliceLogic = self._probe = None

    def _show(self, volumeNode) -> None:
        composite = compositeNode(self._borrowed.view)
        if composite is None or composite.GetBackgroundVolumeID() == volumeNode.GetID():
            return
        former = self._borrowed.found.background
        self._borrowed.showLayers(volumeNode, self._borrowed.view.GetScene().GetNodeByID(former) if former else None)

    def _follow(self) -> None:
        if not isLinearToWorld(self._probe):
            return
        probeToWorld = nodeToWorld(self._probe)
        if np.linalg.norm(probeToWorld[:3, :3], axis=0).min() > 1e-6:
            placeInPlane(self._borrowed.view, probeToWorld, self._centre)


def compositeNode(sliceViewNode):
    """The slice composite node (the layers) of a slice view, or None."""
    nodes = slicer.util.getNodesByClass("vtkMRMLSliceCompositeNode")
    return next((node for node in nodes if node.GetLayoutName() == sliceViewNode.GetLayoutName()), None)


def placeInPlane(view, planeToWorld: np.ndarray, centre) -> None:
    """Puts a slice view into a plane, x to the right and y down the screen, around `centre` (2,) of the plane."""
    right, down = (planeToWorld[:3, :2] / np.linalg.norm(planeToWorld[:3, :2], axis=0)).T
    position = planeToWorld @ [*centre, 0.0, 1.0]
    view.SetSliceToRASByNTP(*np.cross(down, right), *right, *position[:3], 0)


def zoomTo(view, sizeMm) -> None:
    """Makes `sizeMm`, width and height, visible around the middle of a slice view."""
    columns, rows, _layers = view.GetDimensions()
    mmPerPixel = MARGIN * max(sizeMm[0] / max(1, columns), sizeMm[1] / max(1, rows))
    view.SetXYZOrigin(0.0, 0.0, 0.0)
    view.SetFieldOfView(columns * mmPerPixel, rows * mmPerPixel, view.GetFieldOfView()[2])


def _startResliceDriver(sliceViewNode, simulatedSlice):
    """Hands the view over to SlicerIGT's driver and returns its logic; None if it is absent or turns the image.

    Versions of the driver flip in different ways, so what it does is compared with the wanted orientation.
    """
    module = getattr(getattr(slicer, "modules", None), "volumereslicedriver", None)
    if module is None:
        return None
    wanted = fromVtk(sliceViewNode.GetSliceToRAS())
    logic = module.logic()
    logic.SetDriverForSlice(simulatedSlice.GetID(), sliceViewNode)
    logic.SetModeForSlice(TRANSVERSE_MODE, sliceViewNode)
    if hasattr(logic, "SetFlipForSlice"):
        for rotation in (0, 180):
            logic.SetFlipForSlice(True, sliceViewNode)
            logic.SetRotationForSlice(rotation, sliceViewNode)
            found = fromVtk(sliceViewNode.GetSliceToRAS())
            if np.allclose(found[:3, :2], wanted[:3, :2], atol=1e-3):
                return logic
    logic.SetDriverForSlice("", sliceViewNode)
    sliceViewNode.GetSliceToRAS().DeepCopy(toVtk(wanted))
    sliceViewNode.UpdateMatrices()
    return None
