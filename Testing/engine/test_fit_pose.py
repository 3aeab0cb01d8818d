"""The pose of a frame by gradient, with another display, frequency, speckle and noise; and `study pose`."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from diffus.errors import InputError
from diffus.fit.parameters import acquisition_parameters
from diffus.geometry.pose import twist_to_matrix
from diffus.io.transforms import write_transform
from diffus.io.volumes import LPS
from diffus.medium import AcousticMedium
from diffus.probe import write_probe_json
from diffus.render.renderer import UltrasoundRenderer
from diffus.render.settings import RenderSettings
from diffus.studies.pose import DISPLAY, PoseLevel, PoseRecovery, displaced_pose, pose_error
from diffus.sweep.sweep import TrackedSweep, write_sweep
from support.commands import run
from support.fitting_cases import LABELS, PROBE, TRUE_DISPLAY, blobs, fan_mask, fan_sweep
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


def test_starts_are_off_by_what_is_asked_for():
    """At the middle of the fan, in directions that the seed decides."""
    middle = torch.tensor([0.0, PROBE.depth_mm / 2, 0.0, 1.0], dtype=torch.float64)
    starts = [displaced_pose(TRUE, PROBE, 4.0, 6.0, seed) for seed in (0, 0, 1)]
    for start in starts:
        assert ((start - TRUE) @ middle).norm().item() == pytest.approx(4.0, abs=0.01)
        assert pose_error(start, TRUE)[1] == pytest.approx(6.0, abs=1e-6)
    assert torch.equal(starts[0], starts[1])
    assert not torch.allclose(starts[0], starts[2], atol=0.1)


def test_no_number_of_a_display_leaves_what_the_settings_take():
    """A descent may try anything on the way."""
    start = RenderSettings(tgc_reach=1.0)
    for number in acquisition_parameters(DISPLAY[:-1], PROBE, start):
        for t in (-50.0, 50.0):
            start.replace(**{number.name: number.value(torch.tensor(t, dtype=torch.float64))})


# --- the command

VOLUME_TO_REFERENCE = pose_from((10.0, 20.0, -5.0), (12.0, -30.0, 7.0))


@pytest.fixture(params=[1.0])
def case(tmp_path, monkeypatch, request):
    """A label volume, a sweep of three frames of it, the true transform between them, and the probe, on file.

    The parameter is the fraction of the depth down to which the sweep's time gain rises.
    """
    monkeypatch.chdir(tmp_path)
    array, matrix = blobs()
    image = sitk.GetImageFromArray(array)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    image.SetOrigin((LPS @ matrix)[:3, 3].tolist())
    sitk.WriteImage(image, "labels.nrrd")
    Path("names.json").write_text(json.dumps(LABELS))
    medium = AcousticMedium.from_labels(array, LABELS, matrix)
    sweep = fan_sweep(medium, PROBE, count=3, seed=9, gain_db=-4.0, tgc_reach=request.param)
    moved = VOLUME_TO_REFERENCE @ sweep.image_to_reference
    write_sweep(TrackedSweep.from_arrays(sweep.frames, moved.numpy(), mask=sweep.mask), "sweep.mha")
    write_transform("truth.tfm", VOLUME_TO_REFERENCE.numpy())
    write_probe_json(PROBE, "probe.json")
    return {
        "volume": "labels.nrrd",
        "kind": "labels",
        "labels-table": "names.json",
        "sweep": "sweep.mha",
        "volume-to-reference": "truth.tfm",
        "probe": "probe.json",
        "output": "pose.csv",
        "off-mm": 2.0,
        "off-deg": 2.0,
        "starts": 1,
    }


@pytest.mark.parametrize(("case", "within_deg"), [(1.0, 0.6), (0.3, 1.3)], indirect=["case"])
def test_the_command_finds_the_pose_of_a_frame(case, within_deg):
    """Where the far field is dark, less is left in the frame that tells the probe's direction."""
    pytest.importorskip("matplotlib")
    result = run("study pose", case | {"seed": 4, "figure": "pose.png"})
    assert result.exit_code == 0, result.output
    (row,) = csv.DictReader(Path("pose.csv").read_text().splitlines())
    assert row["seed"] == "4"
    assert float(row["start_deg"]) == pytest.approx(2.0, abs=0.01)
    assert float(row["end_mm"]) < 0.4 < float(row["start_mm"])
    assert float(row["end_deg"]) < within_deg
    assert float(row["similarity"]) > 0.8
    assert "median of 1 starts" in result.output
    assert "pose.csv and pose.png written." in result.output
    assert Path("pose.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"frame": 3}, "There is no frame 3: the sweep has 3"),
        ({"sweep": "none.mha"}, "There is no file"),
        ({"volume-to-reference": "names.json"}, "cannot be read as a transform"),
        ({"volume-to-reference": "far.tfm"}, "entirely outside"),
        ({"output": "pose.txt"}, ".csv"),
        ({"figure": "pose.jpg"}, ".png"),
        ({"probe": "pose.csv"}, "would be overwritten"),
        ({"contrast": "t2"}, "--contrast is for --kind mri"),
        ({"volume-to-reference": None}, "Missing option '--volume-to-reference'"),
    ],
)
def test_bad_input_gets_one_sentence_and_writes_nothing(case, changes, sentence):
    far = np.eye(4)
    far[0, 3] = 900.0
    write_transform("far.tfm", far)
    before = sorted(Path().iterdir())
    result = run("study pose", case | changes)
    assert result.exit_code == 2, result.output
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(Path().iterdir()) == before
