"""The CT of the shared data seen through acoustic windows: what the pictures show and the tests measure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffus.io.volumes import read_volume
from diffus.medium import AcousticMedium
from diffus.medium.tissue import label_table
from diffus.probe import Probe, probe_preset
from diffus.render.renderer import UltrasoundRenderer
from diffus.studies.window import WINDOWS, Anatomy, acoustic_window
from scipy import ndimage

TABLE = "totalsegmentator-v1"
ENHANCED_HU = 180.0  # blood with contrast agent, and bone
BLOOD, MYOCARDIUM = 1, 2


@dataclass(frozen=True)
class View:
    """One window: the simulated slice, HU and labels in its plane, (rows, columns) each; extent for matplotlib, mm."""

    probe: Probe
    pose: torch.Tensor
    image: np.ndarray
    hu: np.ndarray
    labels: np.ndarray
    extent: tuple[float, float, float, float]


@dataclass(frozen=True)
class Patient:
    """A CT with labels over it, ready to be rendered. hu, labels: (K, J, I). preset: the image's look."""

    hu: np.ndarray
    labels: np.ndarray
    ijk_to_ras: np.ndarray
    medium: AcousticMedium
    anatomy: Anatomy
    probe: Probe
    preset: str

    def view(self, window: str) -> View:
        pose = acoustic_window(self.anatomy, self.probe, window)
        with torch.inference_mode():
            image = UltrasoundRenderer(self.probe, preset=self.preset)(self.medium, pose)[0].numpy()
        geometry = self.probe.slice_geometry()
        left, top = (geometry.pixel_to_probe[:2, 3] - geometry.mm_per_pixel / 2).tolist()
        right, bottom = left + geometry.columns * geometry.mm_per_pixel, top + geometry.rows * geometry.mm_per_pixel
        hu = self._in_plane(self.hu, pose, order=1, outside=-1000.0)
        return View(self.probe, pose, image, hu, self._in_plane(self.labels, pose, order=0), (left, right, bottom, top))

    def views(self) -> dict[str, View]:
        return {window: self.view(window) for window in WINDOWS}

    def _in_plane(self, volume: np.ndarray, pose: torch.Tensor, order: int, outside: float = 0.0) -> np.ndarray:
        xy = self.probe.slice_geometry().pixel_centres().numpy()
        points = xy @ pose.numpy()[:3, :2].T + pose.numpy()[:3, 3]
        to_ijk = np.linalg.inv(self.ijk_to_ras)
        index = np.moveaxis((points @ to_ijk[:3, :3].T + to_ijk[:3, 3])[..., ::-1], -1, 0)
        return ndimage.map_coordinates(volume.astype(np.float32), index, order=order, cval=outside)


def abdomen(data: Path) -> Patient:
    """The abdomen with TotalSegmentator's labels over the CT; the liver is looked at."""
    ct = read_volume(data / "ct" / "abdomen_pelvis_ct_3mm.nii.gz")
    labels = read_volume(data / "ct" / "abdomen_pelvis_ct_3mm_totalseg_labels.nii.gz").array.astype(np.int32)
    under = AcousticMedium.from_ct(ct.array, ct.ijk_to_ras)
    medium = AcousticMedium.from_labels(labels, TABLE, ct.ijk_to_ras, elsewhere=under)
    anatomy = Anatomy.from_ct(ct.array, labels == label_of("liver"), ct.ijk_to_ras)
    return Patient(ct.array, labels, ct.ijk_to_ras, medium, anatomy, probe_preset("abdominal-convex"), "abdomen")


def heart(data: Path) -> Patient:
    """The heart of a contrast CT: the enhanced blood in one piece, and the muscle between and around it, as labels."""
    ct = read_volume(data / "ct" / "heart_thorax_ct_crop_1p5mm.nii.gz")
    bright = ct.array > ENHANCED_HU
    regions, count = ndimage.label(ndimage.binary_opening(bright, iterations=2))
    largest = regions == 1 + np.argmax(ndimage.sum_labels(bright, regions, np.arange(1, count + 1)))
    blood = ndimage.binary_dilation(largest, iterations=3) & bright
    near = ndimage.binary_dilation(blood, iterations=3) | ndimage.binary_closing(blood, iterations=6)
    muscle = near & ~blood & (ct.array > 20) & (ct.array <= ENHANCED_HU)
    labels = np.where(blood, BLOOD, np.where(muscle, MYOCARDIUM, 0)).astype(np.int32)
    under = AcousticMedium.from_ct(ct.array, ct.ijk_to_ras)
    table = {BLOOD: "blood", MYOCARDIUM: "heart muscle"}
    medium = AcousticMedium.from_labels(labels, table, ct.ijk_to_ras, elsewhere=under)
    bone = bright & ~ndimage.binary_dilation(blood, iterations=2)
    anatomy = Anatomy.from_ct(ct.array, blood, ct.ijk_to_ras, bone)
    probe = replace(probe_preset("phased"), depth_mm=130.0)
    return Patient(ct.array, labels, ct.ijk_to_ras, medium, anatomy, probe, "cardiac")


def label_of(name: str) -> int:
    """The number of a structure in TotalSegmentator's table."""
    return next(value for value, each in label_table(TABLE).items() if each == name)
