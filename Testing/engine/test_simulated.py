"""The simulated hand-held sweeps: seeded, with the truth that they say, speckle locked to tissue, and a clear fan."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.sweep.probe_sweep import probe_of_sweep, rigid_poses
from diffus.sweep.simulated import Anatomy, Scanner, displaced, polar_frame, scatterers, scattering_db, simulate
from diffus.sweep.simulated_head import PROBE, brain_mask


@pytest.fixture(scope="module")
def ball():
    """Memberships of grey and white matter of a ball of brain, 60 mm wide, and its matrix."""
    k, j, i = np.indices((48, 48, 48)) - 23.5
    radius = 2.0 * np.sqrt(i**2 + j**2 + k**2)
    grey, white = ((radius < 60) & (radius >= 50)).astype(np.float32), (radius < 50).astype(np.float32)
    white[(np.abs(i) < 4) & (radius < 40)] = 0  # a cavity of fluid
    matrix = np.diag([2.0, 2.0, 2.0, 1.0])
    matrix[:3, 3] = -47.0
    return grey, white, matrix


@pytest.fixture(scope="module")
def case(ball):
    return simulate(*ball, seed=3, frames=4, size=144, mm_per_pixel=0.6)


def test_the_seed_decides_everything(ball, case):
    same, other = (simulate(*ball, seed=seed, frames=4, size=144, mm_per_pixel=0.6) for seed in (3, 4))
    assert torch.equal(same.sweep.frames, case.sweep.frames)
    np.testing.assert_array_equal(same.mri_to_reference, case.mri_to_reference)
    assert not torch.equal(other.sweep.frames, case.sweep.frames)


def test_the_truth_and_the_guess_are_what_they_say(case):
    assert case.error_mm(case.mri_to_reference) == 0
    moved = case.mri_to_reference.copy()
    moved[:3, 3] += (3.0, 0.0, 4.0)
    assert case.error_mm(moved) == pytest.approx(5.0)
    guess = displaced(case, 8.0, 6.0, seed=1)
    centre = np.append(case.targets.mean(0), 1)
    assert np.linalg.norm((guess - case.mri_to_reference) @ centre) == pytest.approx(8.0)
    turn = np.linalg.inv(case.mri_to_reference[:3, :3]) @ guess[:3, :3]
    assert np.degrees(np.arccos((np.trace(turn) - 1) / 2)) == pytest.approx(6.0)


def test_the_fan_in_the_frames_is_the_probes_own(case):
    probe, pixel_to_probe = probe_of_sweep(case.sweep)
    assert 8 <= probe.radius_mm <= 20
    assert 62 <= probe.depth_mm <= 78
    tracked = rigid_poses(case.sweep, pixel_to_probe)
    true = case.sweep.image_to_reference @ torch.linalg.inv(torch.from_numpy(case.pixel_to_probe))
    assert (tracked[:, :3, 3] - true[:, :3, 3]).norm(dim=1).max() < 2.0


def test_speckle_stays_with_the_tissue(ball):
    """A probe that is shifted sideways by the distance of four rays sees the same grains four rays further."""
    grey, white, matrix = ball
    anatomy = Anatomy(scattering_db(grey, white), grey > 0, matrix)
    probe = replace(PROBE, radius_mm=400.0, fov_deg=8.0, depth_mm=40.0)  # rays nearly parallel
    texture = scatterers(np.random.default_rng(0))
    frames = []
    for shift in (0.0, 4 * 400.0 * np.radians(8.0) / (probe.rays - 1)):
        pose = np.eye(4)
        pose[:3, 3] = (shift, -20.0, 5.0)
        frames.append(polar_frame(anatomy, Scanner(probe), pose, texture, np.random.default_rng(1))[:, :100])
    along = np.corrcoef(frames[0][24:-20].ravel(), frames[1][20:-24].ravel())[0, 1]
    still = np.corrcoef(frames[0][20:-20].ravel(), frames[1][20:-20].ravel())[0, 1]
    assert along > 0.9 > still


def test_ventricles_are_dark_and_sulci_bright():
    grey, white = np.zeros((2, 24, 24, 24), np.float32)
    grey[:, :, :12], white[:, :, 12:] = 1, 1
    grey[:, :, 5] = 0  # a sulcus
    white[8:16, 8:16, 16:22] = 0  # a ventricle
    levels = scattering_db(grey, white, np.ones_like(grey, dtype=bool))[12, 12]
    assert levels[5] > 2
    assert levels[18] == pytest.approx(-40, abs=0.1)
    assert levels[9] == pytest.approx(-4, abs=0.1)
    assert levels[14] == pytest.approx(0, abs=0.1)


def test_what_is_no_head_has_no_brain():
    noise = np.random.default_rng(0).random((30, 30, 30)).astype(np.float32)
    with pytest.raises(InputError, match="No brain was found"):
        brain_mask(noise, [3.0, 3.0, 3.0])
