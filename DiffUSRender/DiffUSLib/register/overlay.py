"""MRI/CT and ultrasound on one frame, in a slice view: faded or as a checkerboard, at any position of the volume."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..i18n import _
from ..scene.slice_node import createOverlayNode, putPixels
from ..scene.slice_views import BorrowedView
from .parameters import OverlayMode


@dataclass(frozen=True)
class OverlaySource:
    """What the overlay is made from.

    Args:
        frames: (K, rows, columns) uint8.
        masks: (1 or K, rows, columns), true in the fan.
        imageToWorld: (K, 4, 4), (column, row, 0, 1) to world mm.
        voxels: (K, J, I) of the volume.
        ijkToRas: (4, 4) of the voxels.
        low: grey value that is shown black.
        high: grey value that is shown white.
        itemNumbers: the item of the recording of every frame.
        key: of the nodes that it was read from, see `sessionKey`.
    """

    frames: np.ndarray
    masks: np.ndarray
    imageToWorld: np.ndarray
    voxels: np.ndarray
    ijkToRas: np.ndarray
    low: float
    high: float
    itemNumbers: tuple[int, ...] = ()
    key: tuple = ()

    def ultrasound(self, number: int) -> np.ndarray:
        """A frame as grey values, uint8 (rows, columns)."""
        return np.asarray(self.frames[number])

    def volume(self, number: int, volumeToWorld: np.ndarray) -> np.ndarray:
        """The volume in the plane and on the pixels of a frame.

        Args:
            volumeToWorld: (4, 4), the volume's own RAS to world, mm.

        Returns:
            uint8 (rows, columns).
        """
        from scipy import ndimage

        pixelToIjk = np.linalg.inv(volumeToWorld @ self.ijkToRas) @ self.imageToWorld[number]
        rows, columns = self.frames[number].shape
        c, r = np.meshgrid(np.arange(columns), np.arange(rows))
        i, j, k = (row[0] * c + row[1] * r + row[3] for row in pixelToIjk[:3])
        values = ndimage.map_coordinates(
            self.voxels, [k, j, i], output=np.float32, order=1, mode="constant", cval=self.low
        )
        grey = (values - self.low) / max(self.high - self.low, 1e-9)
        return (np.clip(grey, 0, 1) * 255).round().astype(np.uint8)

    def checkerboard(self, number: int, volumeToWorld: np.ndarray, sizeMm: float) -> np.ndarray:
        """Fields of `sizeMm`, alternately from the frame (the first, top left) and from the volume.

        Returns:
            uint8 (rows, columns); outside of the fan it is the volume everywhere.
        """
        rows, columns = self.frames[number].shape
        spacing = np.linalg.norm(self.imageToWorld[number][:3, :2], axis=0)
        c, r = np.floor(np.arange(columns) * spacing[0] / sizeMm), np.floor(np.arange(rows) * spacing[1] / sizeMm)
        fan = self.masks[number if len(self.masks) > 1 else 0]
        fromVolume = ((c[None, :] + r[:, None]) % 2 == 1) | ~fan
        return np.where(fromVolume, self.volume(number, volumeToWorld), self.ultrasound(number))


def greyRange(volumeNode, voxels: np.ndarray) -> tuple[float, float]:
    """Grey values of black and white: those that the volume is displayed with, if they were set, else from `voxels`."""
    display = volumeNode.GetDisplayNode() if volumeNode.IsA("vtkMRMLScalarVolumeNode") else None
    if display is not None and not display.GetAutoWindowLevel() and display.GetWindow() > 0:
        return display.GetLevel() - display.GetWindow() / 2, display.GetLevel() + display.GetWindow() / 2
    return commonRange(voxels)


def commonRange(voxels: np.ndarray) -> tuple[float, float]:
    """The 1st and 99th percentile of the voxels; the smallest and largest where those are one."""
    coarse = voxels[tuple(slice(None, None, max(1, size // 64)) for size in voxels.shape)]
    low, high = np.percentile(coarse, [1.0, 99.0])
    return (float(low), float(high)) if high > low else (float(voxels.min()), float(voxels.max()))


class FrameOverlay:
    """Two small volumes of one slice each, the frame and what lies over it, shown in a slice view in their plane."""

    def __init__(self) -> None:
        self._nodes: list = []
        self._borrowed = BorrowedView()

    @property
    def active(self) -> bool:
        return bool(self._nodes)

    @property
    def nodes(self) -> tuple:
        """The nodes of the frame and of what lies over it; empty when nothing is shown."""
        return tuple(self._nodes)

    def show(
        self, view, source: OverlaySource, number: int, volumeToWorld: np.ndarray, mode: OverlayMode, settings
    ) -> None:
        """Shows a frame with the volume over it.

        Args:
            number: index of the frame.
            volumeToWorld: (4, 4), the volume's own RAS to world, mm.
            settings: has `fade` (0 to 1) and `checkerMm`.
        """
        if self._borrowed.view is not view or any(node.GetScene() is None for node in self._nodes):
            self.hide()
        if mode is OverlayMode.CHECKERBOARD:
            pixels, opacity = source.checkerboard(number, volumeToWorld, settings.checkerMm), 1.0
        else:
            pixels, opacity = source.volume(number, volumeToWorld), settings.fade
        if not self._nodes:
            names = (_("Ultrasound frame (overlay)"), _("MRI/CT on the frame (overlay)"))
            self._nodes = [createOverlayNode(view.GetScene(), name) for name in names]
        imageToWorld = source.imageToWorld[number]
        for node, array in zip(self._nodes, (source.ultrasound(number), pixels)):
            putPixels(node, array, imageToWorld, None)
        self._borrowed.take(view)
        self._borrowed.showLayers(*self._nodes, opacity)
        self._borrowed.showImage(imageToWorld, pixels.shape)

    def hide(self) -> None:
        """Gives the view back as it was, and removes the two volumes."""
        self._borrowed.giveBack()
        for node in (*(volume.GetDisplayNode() for volume in self._nodes), *self._nodes):
            if node is not None and node.GetScene() is not None:
                node.GetScene().RemoveNode(node)
        self.forget()

    def forget(self) -> None:
        """Drops every node without touching it, for a scene that closes."""
        self._nodes = []
        self._borrowed.forget()
