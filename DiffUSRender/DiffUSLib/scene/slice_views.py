"""A slice view that follows the probe: depth down the screen, the marked side to the right."""

from __future__ import annotations

import numpy as np
import slicer

from .transforms import fromVtk, isLinearToWorld, nodeToWorld, toVtk

MARGIN = 1.08  # field of view over the fan's size
TRANSVERSE_MODE = 6  # of SlicerIGT's volume reslice driver


class SliceViewDriver:
    """Keeps a slice view in the probe's plane: by SlicerIGT's volume reslice driver if it is there, else by itself."""

    def __init__(self) -> None:
        self._probe = self._slice = None
        self._centre = np.zeros(3)
        self._tag: int | None = None
        self._resliceLogic = None
        self._shown: str | None = None
        self._formerBackground: str | None = None

    @property
    def active(self) -> bool:
        return self._slice is not None

    def start(self, sliceViewNode, probeNode, simulatedSlice, sizeMm: np.ndarray, centre: np.ndarray) -> None:
        """Drives `sliceViewNode` from now on; the view is centred on `centre`, probe mm, and shows `sizeMm`.

        `simulatedSlice` becomes the view's background; what was there before becomes its foreground, hidden, so
        that the view's fade slider brings it up.
        """
        self.stop()
        self._probe, self._slice, self._centre = probeNode, sliceViewNode, np.append(centre, 1.0)
        self._show(simulatedSlice)
        _setFieldOfView(sliceViewNode, sizeMm * MARGIN)
        self._follow()
        self._resliceLogic = _startResliceDriver(sliceViewNode, simulatedSlice)
        if self._resliceLogic is None:
            event = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
            self._tag = probeNode.AddObserver(event, lambda caller, event: self._follow())

    def stop(self) -> None:
        """Lets the view stay where it is, and brings back the image that it showed before."""
        if self._tag is not None:
            self._probe.RemoveObserver(self._tag)
        if self._resliceLogic is not None:
            self._resliceLogic.SetDriverForSlice("", self._slice)
        composite = compositeNode(self._slice) if self._slice is not None else None
        if composite is not None and self._shown and composite.GetBackgroundVolumeID() == self._shown:
            composite.SetBackgroundVolumeID(self._formerBackground)
            composite.SetForegroundVolumeID(None)
        self._shown = self._formerBackground = None
        self._tag = self._resliceLogic = self._probe = self._slice = None

    def _show(self, volumeNode) -> None:
        composite = compositeNode(self._slice)
        if composite is None or composite.GetBackgroundVolumeID() == volumeNode.GetID():
            return
        self._shown, self._formerBackground = volumeNode.GetID(), composite.GetBackgroundVolumeID()
        composite.SetBackgroundVolumeID(self._shown)
        if self._formerBackground:
            composite.SetForegroundVolumeID(self._formerBackground)
            composite.SetForegroundOpacity(0.0)

    def _follow(self) -> None:
        if not isLinearToWorld(self._probe):
            return
        probeToWorld = nodeToWorld(self._probe)
        lengths = np.linalg.norm(probeToWorld[:3, :3], axis=0)
        if (lengths < 1e-6).any():
            return
        lateral, _depth, elevation = (probeToWorld[:3, :3] / lengths).T
        position = probeToWorld @ self._centre
        # Screen up is normal x transverse = -elevation x lateral = -depth.
        self._slice.SetSliceToRASByNTP(*-elevation, *lateral, *position[:3], 0)


def compositeNode(sliceViewNode):
    """The slice composite node (the layers) of a slice view, or None."""
    scene = sliceViewNode.GetScene()
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLSliceCompositeNode") if scene else 0):
        node = scene.GetNthNodeByClass(n, "vtkMRMLSliceCompositeNode")
        if node.GetLayoutName() == sliceViewNode.GetLayoutName():
            return node
    return None


def _setFieldOfView(sliceViewNode, sizeMm: np.ndarray) -> None:
    columns, rows, _layers = sliceViewNode.GetDimensions()
    mmPerPixel = max(sizeMm[0] / max(1, columns), sizeMm[1] / max(1, rows))
    sliceViewNode.SetFieldOfView(columns * mmPerPixel, rows * mmPerPixel, sliceViewNode.GetFieldOfView()[2])


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
