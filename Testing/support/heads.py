"""The MNI152 head with its tissue maps, and a head that is bent: what tests, benchmarks and the demo simulate on."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from diffus.io.volumes import read_volume
from scipy import ndimage


def mni152(folder: Path | None = None):
    """(t1, grey, white) arrays (K, J, I) and ijk_to_ras of the MNI152 brain; nilearn's own files without `folder`."""
    if folder is None:
        folder = Path(find_spec("nilearn").origin).parent / "datasets" / "data"
        names = [f"mni_icbm152_{k}_tal_nlin_sym_09a_converted.nii.gz" for k in ("t1", "gm", "wm")]
    else:
        names = [f"mni152_2009a_{k}_1mm.nii.gz" for k in ("t1", "gm", "wm")]
    volumes = [read_volume(folder / name) for name in names]
    t1, grey, white = (volume.array.astype(np.float32) for volume in volumes)
    return t1, grey / 255, white / 255, volumes[0].ijk_to_ras


def smooth_deformation(volume, ijk_to_ras, *, seed: int, peak_mm: float, sigma_mm: float = 20.0):
    """(warped volume, displacement (3, K, J, I) mm RAS): warped(x) = volume(x + displacement(x)), of this peak."""
    rng = np.random.default_rng(seed)
    shape = np.array(np.shape(volume))
    coarse = np.maximum(shape // 8, 4)
    field = ndimage.gaussian_filter(rng.standard_normal((3, *coarse)), (0, *(3 * [sigma_mm / 8])))
    field = np.stack([ndimage.zoom(f, shape / coarse, order=1) for f in field])[:, : shape[0], : shape[1], : shape[2]]
    field *= peak_mm / np.sqrt((field**2).sum(0)).max()
    steps = np.einsum("ab,bkji->akji", np.linalg.inv(ijk_to_ras[:3, :3]), field)[::-1]
    where = np.indices(shape) + steps
    return ndimage.map_coordinates(np.asarray(volume, np.float32), where, order=1), field.astype(np.float32)
