"""A slice view in the plane of an image: aligned, with the layers asked for, and given back as it was found."""

from __future__ import annotations

import numpy as np

from .slice_views import MARGIN, compositeNode
from .transforms import fromVtk, toVtk


class FrameView:
    """Shows one or two volumes in a slice view that lies in their plane."""

    def __init__(self) -> None:
        self.forget()

    @property
    def view(self):
        """The slice view in use, or None."""
        return self._view

    def show(
        self, view, background, foreground, opacity: float, imageToWorld: np.ndarray, shape: tuple[int, int]
    ) -> None:
        """Shows `background` with `foreground` (or None) over it, in the plane of an image.

        imageToWorld: (4, 4), (column, row, 0, 1) to world mm, of an image of `shape` (rows, columns). The view is
        zoomed to it when it is new; the user's own zoom stays from then on.
        """
        if self._view is not view:
            self.giveBack()
            self._view, self._found = view, viewState(view)
        if (composite := compositeNode(view)) is not None:
            over = None if foreground is None else foreground.GetID()
            if (composite.GetBackgroundVolumeID(), composite.GetForegroundVolumeID()) != (background.GetID(), over):
                composite.SetBackgroundVolumeID(background.GetID())
                composite.SetForegroundVolumeID(over)
            composite.SetForegroundOpacity(opacity)
        if self._imageToWorld is None or not np.array_equal(self._imageToWorld, imageToWorld):
            placeInPlane(view, imageToWorld, shape)
            self._imageToWorld = imageToWorld
        if self._shape != shape:
            zoomToImage(view, imageToWorld, shape)
            self._shape = shape

    def giveBack(self) -> None:
        """Leaves the view as it was found."""
        if self._view is not None and self._view.GetScene() is not None:
            restoreView(self._view, self._found)
        self.forget()

    def forget(self) -> None:
        """Drops the view without touching it, for a scene that closes."""
        self._view = self._found = self._imageToWorld = self._shape = None


def alignToFrame(view, imageToWorld: np.ndarray, shape: tuple[int, int]) -> None:
    """Puts a slice view into the plane of an image (rows, columns): columns to the right, rows down, all in sight."""
    placeInPlane(view, imageToWorld, shape)
    zoomToImage(view, imageToWorld, shape)


def placeInPlane(view, imageToWorld: np.ndarray, shape: tuple[int, int]) -> None:
    """Puts a slice view into the plane of an image (rows, columns): columns to the right, rows down, in the middle."""
    right, down = (imageToWorld[:3, :2] / np.linalg.norm(imageToWorld[:3, :2], axis=0)).T
    centre = imageToWorld @ [(shape[1] - 1) / 2, (shape[0] - 1) / 2, 0.0, 1.0]
    view.SetSliceToRASByNTP(*np.cross(down, right), *right, *centre[:3], 0)


def zoomToImage(view, imageToWorld: np.ndarray, shape: tuple[int, int]) -> None:
    """Makes all of an image (rows, columns) visible in a slice view that lies in its plane."""
    spacing = np.linalg.norm(imageToWorld[:3, :2], axis=0)
    width, height, _depth = view.GetDimensions()
    mmPerPixel = MARGIN * max(shape[1] * spacing[0] / max(1, width), shape[0] * spacing[1] / max(1, height))
    view.SetXYZOrigin(0.0, 0.0, 0.0)
    view.SetFieldOfView(width * mmPerPixel, height * mmPerPixel, view.GetFieldOfView()[2])


def viewState(view) -> tuple:
    """What `restoreView` needs: orientation, zoom and layers of a slice view."""
    composite = compositeNode(view)
    layers = None
    if composite is not None:
        layers = (
            composite.GetBackgroundVolumeID(),
            composite.GetForegroundVolumeID(),
            composite.GetForegroundOpacity(),
        )
    return fromVtk(view.GetSliceToRAS()), view.GetFieldOfView(), view.GetXYZOrigin(), layers


def restoreView(view, found: tuple) -> None:
    """Puts a slice view back as `viewState` found it."""
    sliceToRas, fieldOfView, origin, layers = found
    composite = compositeNode(view)
    if composite is not None and layers is not None:
        scene, (*volumes, opacity) = view.GetScene(), layers
        # One that has gone since must not come back as whatever volume gets its identifier next.
        background, foreground = (name if name and scene.GetNodeByID(name) else None for name in volumes)
        composite.SetBackgroundVolumeID(background)
        composite.SetForegroundVolumeID(foreground)
        composite.SetForegroundOpacity(opacity)
    view.GetSliceToRAS().DeepCopy(toVtk(sliceToRas))
    view.SetXYZOrigin(*origin)
    view.SetFieldOfView(*fieldOfView)
    view.UpdateMatrices()
