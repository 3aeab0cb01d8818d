"""CT through acoustic windows: ribs cast shadows and vessels are dark; and where the probe is put."""

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.render.scan_conversion import scan_grid
from diffus.studies.window import Anatomy, acoustic_window
from scipy import ndimage
from support.ct_windows import BLOOD, MYOCARDIUM, abdomen, heart, label_of
from support.phantoms import probe_of

RIB = range(58, 82)  # TotalSegmentator v1
VESSELS = ("portal_vein_and_splenic_vein", "inferior_vena_cava")


@pytest.fixture(scope="module")
def liver(shared_data):
    return abdomen(shared_data)


@pytest.fixture(scope="module")
def intercostal(liver):
    return liver.view("intercostal")


def polar(view, image, order=1):
    """An image of the view's plane along the probe's rays, (rays, samples)."""
    points = view.probe.sample_points()[0][0, ..., :2].numpy()
    to_probe = view.probe.slice_geometry().pixel_to_probe.numpy()
    pixel = (points - to_probe[:2, 3]) / np.diag(to_probe)[:2]
    return ndimage.map_coordinates(np.asarray(image, np.float32), np.moveaxis(pixel[..., ::-1], -1, 0), order=order)


def test_a_rib_casts_a_shadow_between_which_the_liver_shows(liver, intercostal):
    image, labels = polar(intercostal, intercostal.image), polar(intercostal, intercostal.labels, order=0)
    near = labels[:, : labels.shape[1] // 3]
    ribs = np.isin(near, RIB).sum(1) >= 4
    rays = len(ribs)
    assert ribs[: rays // 2].any()
    assert ribs[rays // 2 :].any()
    depth = np.arange(image.shape[1])
    behind = (depth > 0.4 * len(depth)) & (depth < 0.6 * len(depth))
    organ = labels == label_of("liver")
    clear = ~ndimage.binary_dilation(ribs, iterations=8) & organ[:, behind].all(1)
    assert clear.sum() > 20
    inside = ndimage.binary_erosion(ribs) & organ[:, behind].any(1) | ndimage.binary_erosion(ribs, iterations=2)
    assert image[inside][:, behind].mean() < 0.5 * image[clear][:, behind].mean()


def test_vessels_are_darker_than_the_liver(liver):
    view = liver.view("subcostal")
    lumen = np.isin(view.labels, [label_of(name) for name in VESSELS])
    organ = view.labels == label_of("liver")
    # Blood may be black: what lies outside of the fan is told by the fan, not by its grey.
    fan = scan_grid(view.probe)[1].numpy()
    lumen = ndimage.binary_erosion(lumen, iterations=6) & fan
    beside = fan & ndimage.binary_erosion(organ, iterations=6) & ndimage.binary_dilation(lumen, iterations=30)
    assert lumen.sum() > 30
    assert view.image[lumen].mean() < view.image[beside].mean() - 0.1


def test_chambers_of_the_heart_are_darker_than_its_muscle(shared_data):
    view = heart(shared_data).view("intercostal")
    geometry = view.probe.slice_geometry()
    depth = geometry.pixel_centres()[..., 1].numpy()
    shown = (view.image > 0) & (depth < 0.75 * view.probe.depth_mm)
    blood = ndimage.binary_erosion(view.labels == BLOOD, iterations=8) & shown
    muscle = ndimage.binary_erosion(view.labels == MYOCARDIUM, iterations=8) & shown
    assert min(blood.sum(), muscle.sum()) > 300
    assert view.image[blood].mean() < 0.5 * view.image[muscle].mean()


def body(rib_gap_mm=24.0):
    """A cylinder of 120 mm about z, an organ on its right (+x), ribs around every `rib_gap_mm`; voxels of 2 mm."""
    k, j, i = np.indices((61, 71, 71)) * 2.0 - np.array([60.0, 70.0, 70.0]).reshape(3, 1, 1, 1)
    radius = np.hypot(i, j)
    organ = (i - 25) ** 2 + j**2 + k**2 < 25**2
    ribs = (np.abs(radius - 54) < 3) & ((k % rib_gap_mm) < 4)
    ijk_to_ras = np.diag([2.0, 2.0, 2.0, 1.0])
    ijk_to_ras[:3, 3] = [-70.0, -70.0, -60.0]
    return Anatomy(radius < 60, organ, ribs, ijk_to_ras)


def test_the_probe_stands_on_the_skin_and_looks_at_the_organ():
    probe = probe_of("convex", depth_mm=90.0)
    pose = acoustic_window(body(), probe, "intercostal").numpy()
    assert np.allclose(pose[:3, :3].T @ pose[:3, :3], np.eye(3))
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1.0)
    assert np.hypot(*pose[:2, 3]) == pytest.approx(60.0, abs=4.0)
    assert pose[0, 3] > 20.0  # on the organ's side
    assert pose[:3, 1] @ (np.array([25.0, 0.0, 0.0]) - pose[:3, 3]) > 0
    assert pose[2, 0] < -0.8  # the marked side is towards the feet
    below = acoustic_window(body(), probe, "subcostal").numpy()
    assert below[1, 3] > 10.0  # in front
    assert below[2, 1] > 0  # from below, upwards
    assert below[0, 0] < -0.5  # towards the left


def test_no_window_is_said_in_words():
    closed = body(rib_gap_mm=4.0)
    with pytest.raises(InputError, match="No intercostal window"):
        acoustic_window(closed, probe_of(), "intercostal")
    with pytest.raises(InputError, match="no window 'apical'"):
        acoustic_window(body(), probe_of(), "apical")
    empty = Anatomy(closed.body, np.zeros_like(closed.organ), closed.blocked, closed.ijk_to_ras)
    with pytest.raises(InputError, match="organ"):
        acoustic_window(empty, probe_of())


def test_lungs_and_gas_block_and_air_around_does_not():
    hu = np.full((40, 40, 40), -1000.0, np.float32)
    hu[:, 8:32, 8:32] = 40.0
    hu[10:30, 16:20, 16:20] = -900.0
    hu[10:12, 24:26, 24:26] = 900.0
    organ = np.zeros(hu.shape, bool)
    organ[18:22, 26:30, 12:20] = True
    anatomy = Anatomy.from_ct(hu, organ, np.diag([3.0, 3.0, 3.0, 1.0]))
    assert anatomy.blocked[20, 18, 18]
    assert anatomy.blocked[11, 25, 25]
    assert not anatomy.blocked[20, 2, 2]
    assert not anatomy.body[20, 2, 2]
    assert anatomy.body[20, 20, 20]
    with pytest.raises(InputError, match="different grids"):
        Anatomy.from_ct(hu, organ[1:], np.eye(4))


def test_the_same_anatomy_gives_the_same_pose():
    assert torch.equal(acoustic_window(body(), probe_of()), acoustic_window(body(), probe_of()))
