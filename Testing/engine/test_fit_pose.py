"""The pose of a single frame by gradient, from a frame of another display, frequency, speckle and noise."""

from dataclasses import replace

import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.pose import twist_to_matrix
from diffus.render.renderer import UltrasoundRenderer
from diffus.render.settings import RenderSettings
from diffus.studies.pose import PoseLevel, PoseRecovery
from support.fitting_cases import PROBE, TRUE_DISPLAY, fan_mask, pose_error
from support.phantoms import phantom, pose_from

TRUE = pose_from((4.0, 6.0, 3.0), (0.5, 0.3, 0.2))
LEVELS = (
    PoseLevel(32, 64, 3.0, 4.0, 3, 5),
    PoseLevel(64, 128, 1.0, 0.0, 1, 5, True),
    PoseLevel(96, 240, 0.4, 0, 1, 5, True),
)


def folds(maps, x, y, z):
    """Scattering that varies over 45 dB in every direction, within a centimetre or two."""
    wave = torch.sin(0.45 * x + 0.2 * z) + torch.sin(0.4 * y - 0.25 * z) + torch.sin(0.42 * z + 0.15 * x + 1)
    maps[3] = 10 ** (0.4 * wave - 0.3)
    maps[0] += 0.02 * wave


@pytest.fixture(scope="module")
def medium():
    return phantom(folds, size_mm=80.0)


@pytest.fixture(scope="module")
def frame(medium):
    renderer = UltrasoundRenderer(replace(PROBE, frequency_mhz=5.4, focus_mm=40.0), seed=17, **TRUE_DISPLAY)
    with torch.inference_mode():
        return renderer(medium, TRUE)[0].mul(255).round().div(255)


@pytest.mark.parametrize("twist_mm_deg", [(3.0, -2.0, 2.0, 3.0, -2.0, 4.0), (-2.0, 3.0, -3.0, -3.0, 3.0, 2.0)])
def test_the_pose_of_a_frame_comes_back(medium, frame, twist_mm_deg):
    offset = torch.tensor(twist_mm_deg, dtype=torch.float64)
    offset[3:] = torch.deg2rad(offset[3:])
    start = TRUE @ twist_to_matrix(offset)
    states = list(PoseRecovery(medium, frame, PROBE, start, mask=fan_mask(PROBE), levels=LEVELS))
    before, after = pose_error(start, TRUE), pose_error(states[-1].probe_to_ras, TRUE)
    assert min(before) > 4
    assert after[0] < 0.3
    assert after[1] < 0.3
    assert [state.step for state in states] == list(range(1, 16))
    assert states[-1].similarity > states[0].similarity


def test_the_frame_may_lie_elsewhere_on_its_pixels(medium, frame):
    """Two rows more above and three columns more at the left: the probe is found where pixel_to_probe says it is."""
    wider = torch.nn.functional.pad(frame, (3, 0, 2, 0))
    shift = torch.eye(4, dtype=torch.float64)
    shift[:2, 3] = torch.tensor([-3.0, -2.0])
    place = PROBE.slice_geometry().pixel_to_probe @ shift
    level = (PoseLevel(48, 96, 1.0, 0.0, 1, 4, True),)
    mask = torch.nn.functional.pad(torch.from_numpy(fan_mask(PROBE)), (3, 0, 2, 0)).numpy()
    start = TRUE @ pose_from((0.5, 0.5, 0.5), (0.4, 0.4, 0.4))
    *_, last = PoseRecovery(medium, wider, PROBE, start, pixel_to_probe=place, mask=mask, levels=level)
    assert pose_error(last.probe_to_ras, TRUE)[0] < 0.3


def test_bad_requests_get_one_sentence(medium, frame):
    with pytest.raises(InputError, match="where the probe lies"):
        PoseRecovery(medium, frame[:-5], PROBE, TRUE)
    with pytest.raises(InputError, match="logarithmic"):
        PoseRecovery(medium, frame, PROBE, TRUE, settings=RenderSettings(compression="linear"))
    with pytest.raises(InputError, match="entirely outside"):
        list(PoseRecovery(medium, frame, PROBE, pose_from((0.0, 0.0, 0.0), (0.0, 400.0, 0.0)), levels=LEVELS))
    with pytest.raises(InputError, match="initial pose"):
        PoseRecovery(medium, frame, PROBE, torch.zeros(4, 4))
