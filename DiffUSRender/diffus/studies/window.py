"""Where a sonographer would put the probe to see an organ: an intercostal or a subcostal window, from a segmentation.

The probe stands on the skin and looks at the organ. Of many poses the one is chosen whose fan shows the largest part of
the organ that no bone and no gas hides. World RAS, mm.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage

from ..errors import InputError
from ..medium.ct import air_around_patient

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from ..probe import Probe

WINDOWS = ("intercostal", "subcostal")
BONE_HU, GAS_HU = 250.0, -500.0
STEP_MM = 1.0  # of the search for the skin
RAYS, SAMPLES = 33, 80  # of the fan that is looked along
DIRECTIONS = 12  # along either angle of the search
TARGETS = 9
MIDDLE = 0.3  # fraction of the rays that must be free of bone and gas in front of the organ


@dataclass(frozen=True)
class Anatomy:
    """What a window is chosen from, on one grid.

    Args:
        body: the patient without the air around, cavities filled, (K, J, I).
        organ: what is to be seen, (K, J, I).
        blocked: bone and gas, (K, J, I).
        ijk_to_ras: (4, 4).
    """

    body: Bool[np.ndarray, "k j i"]
    organ: Bool[np.ndarray, "k j i"]
    blocked: Bool[np.ndarray, "k j i"]
    ijk_to_ras: Float[np.ndarray, "4 4"]

    @classmethod
    def from_ct(cls, hu: np.ndarray, organ: np.ndarray, ijk_to_ras: np.ndarray, bone: np.ndarray | None = None):
        """The anatomy of a CT.

        Args:
            hu: Hounsfield units, (K, J, I).
            organ: what is to be seen, (K, J, I).
            ijk_to_ras: (4, 4).
            bone: where bone is, if contrast agent looks like it.

        Raises:
            InputError: two grids, or no body.
        """
        if hu.shape != organ.shape:
            raise InputError("The segmentation and the CT have different grids; resample one of them.")
        matrix = np.asarray(ijk_to_ras, dtype=np.float64)
        axial = 2 - int(np.abs(matrix[2, :3] / np.linalg.norm(matrix[:3, :3], axis=0)).argmax())
        body = _largest(~air_around_patient(torch.from_numpy(np.asarray(hu, dtype=np.float32)), axial).numpy())
        hard = (hu > BONE_HU) & (np.asarray(organ) == 0) if bone is None else bone
        return cls(body, np.asarray(organ, dtype=bool), body & (hard | (hu < GAS_HU)), matrix)


def _largest(inside: Bool[np.ndarray, "k j i"]) -> Bool[np.ndarray, "k j i"]:
    """The largest connected part, without the couch."""
    regions, count = ndimage.label(ndimage.binary_opening(inside))
    if count == 0:
        raise InputError("The CT shows no body: nothing in it is denser than air.")
    return regions == 1 + np.argmax(ndimage.sum_labels(inside, regions, np.arange(1, count + 1)))


def acoustic_window(anatomy: Anatomy, probe: Probe, window: str = "intercostal") -> Float[torch.Tensor, "4 4"]:
    """A pose of the probe on the skin, directed to the organ.

    Args:
        anatomy: of the patient.
        probe: its fan.
        window: `intercostal`: from the organ's side of the body, fan along the body with the head to the left, between
            ribs that bound the view on both sides. `subcostal`: from in front and below, fan across the body, the
            patient's right to the left.

    Returns:
        probe_to_ras (4, 4), float64.

    Raises:
        InputError: the organ cannot be seen through such a window.
    """
    if window not in WINDOWS:
        raise InputError(f"There is no window {window!r}; choose one of {', '.join(WINDOWS)}.")
    if not anatomy.organ.any():
        raise InputError("The organ to look at is not in the segmentation; choose another label.")
    probe = replace(probe, rays=RAYS, samples=SAMPLES, elevation_layers=1, rays_per_line=1)
    fan = probe.sample_points()[0][0].numpy()
    press = 0.5 * (fan[RAYS // 2, 0, 1] - fan[0, 0, 1])  # the skin yields to a curved face
    best, chosen = 0.0, None
    for target in _targets(anatomy):
        for outward in _outward(anatomy, window):
            skin = _skin(anatomy, target, outward)
            pose = _pose(skin - press * outward, -outward, window)
            score = _score(anatomy, fan, pose, window)
            if score > best:
                best, chosen = score, pose
    if chosen is None:
        raise InputError(f"No {window} window shows the organ; choose another window or a deeper probe.")
    return torch.from_numpy(chosen)


def _targets(anatomy: Anatomy) -> np.ndarray:
    """The organ's centroid, moved into it, and other points well inside, RAS mm, (n, 3)."""
    depth = ndimage.distance_transform_edt(anatomy.organ)
    deep = np.argwhere(depth > 0.4 * depth.max())
    middle = np.argwhere(anatomy.organ).mean(0)
    order = deep[np.argsort(np.linalg.norm(deep - middle, axis=1))]
    picked = order[np.linspace(0, len(order) - 1, TARGETS).astype(int)][:, ::-1]
    return picked @ anatomy.ijk_to_ras[:3, :3].T + anatomy.ijk_to_ras[:3, 3]


def _outward(anatomy: Anatomy, window: str) -> list[np.ndarray]:
    """Unit directions from the organ to where the probe may stand."""
    to_x = anatomy.ijk_to_ras[0, :3] @ (_centroid(anatomy.organ) - _centroid(anatomy.body))
    side = 1.0 if to_x >= 0 else -1.0
    found = []
    for a in np.radians(np.linspace(-60, 60, DIRECTIONS)):
        if window == "intercostal":  # about the body's side, to the front and the back, a little up and down
            tilts = np.radians(np.linspace(-30, 30, DIRECTIONS // 2))
            found += [np.array([side * np.cos(a) * np.cos(t), np.sin(a) * np.cos(t), np.sin(t)]) for t in tilts]
        else:  # about straight in front, to both sides, below the organ
            tilts = np.radians(np.linspace(-65, -10, DIRECTIONS // 2))
            found += [np.array([np.sin(a) * np.cos(t), np.cos(a) * np.cos(t), np.sin(t)]) for t in tilts]
    return found


def _centroid(mask: np.ndarray) -> np.ndarray:
    return np.array([axis.mean() for axis in np.nonzero(mask)[::-1]])


def _skin(anatomy: Anatomy, target: np.ndarray, outward: np.ndarray) -> np.ndarray:
    """The last point of the body on the way out."""
    reach = np.linalg.norm(np.array(anatomy.body.shape[::-1]) * np.linalg.norm(anatomy.ijk_to_ras[:3, :3], axis=0))
    steps = np.arange(0.0, reach, STEP_MM)
    inside = _look_up(anatomy.body, anatomy, target + steps[:, None] * outward)
    return target + (steps[np.flatnonzero(inside)[-1]] if inside.any() else 0.0) * outward


def _pose(face: np.ndarray, depth: np.ndarray, window: str) -> np.ndarray:
    """The marked side, to the right of the image, is towards the feet or towards the patient's left."""
    marked = np.array([0.0, 0.0, -1.0]) if window == "intercostal" else np.array([-1.0, 0.0, 0.0])
    marked = marked - (marked @ depth) * depth
    marked /= np.linalg.norm(marked)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([marked, depth, np.cross(marked, depth)], 1)
    pose[:3, 3] = face
    return pose


def _score(anatomy: Anatomy, fan: np.ndarray, pose: np.ndarray, window: str) -> float:
    """Fraction of the fan that shows the organ, less half of that outside of the volume; 0 for another window."""
    points = fan @ pose[:3, :3].T + pose[:3, 3]
    organ = _look_up(anatomy.organ, anatomy, points)
    blocked = _look_up(anatomy.blocked, anatomy, points)
    past = np.logical_or.accumulate(blocked, axis=1)
    seen = organ & ~past
    middle = slice(math.floor(RAYS * (1 - MIDDLE) / 2), math.ceil(RAYS * (1 + MIDDLE) / 2))
    if not seen[middle].any(1).all():
        return 0.0
    if window == "intercostal":
        near = past[:, : SAMPLES // 3].any(1)  # ribs, not the spine
        if not (near[: RAYS // 2].any() and near[RAYS // 2 :].any()):
            return 0.0
    return float(seen.mean() - 0.5 * (~_within(anatomy, points)).mean())


def _indices(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    to_ijk = np.linalg.inv(anatomy.ijk_to_ras)
    return np.rint(points @ to_ijk[:3, :3].T + to_ijk[:3, 3]).astype(int)


def _within(anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    return ((_indices(anatomy, points) >= 0) & (_indices(anatomy, points) < anatomy.body.shape[::-1])).all(-1)


def _look_up(mask: np.ndarray, anatomy: Anatomy, points: np.ndarray) -> np.ndarray:
    index = _indices(anatomy, points)
    valid = ((index >= 0) & (index < mask.shape[::-1])).all(-1)
    i, j, k = np.moveaxis(np.where(valid[..., None], index, 0), -1, 0)
    return valid & mask[k, j, i]
