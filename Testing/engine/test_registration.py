"""The whole registration on a simulated sweep and on spoilt ones: finds the pose, repeats itself, does not lie."""

import dataclasses

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.register.registration import RigidRegistration, Settings, frames_apart, register
from diffus.register.search import SearchSettings
from diffus.sweep.simulated import SimulatedCase, displaced, simulate
from support.heads import mni152

QUICK = Settings(search=SearchSettings(samples=6144, around=64, copies=6, starts=24))


@pytest.fixture(scope="module")
def head():
    return mni152()


@pytest.fixture(scope="module")
def case(head) -> SimulatedCase:
    _, grey, white, ijk_to_ras = head
    return simulate(grey, white, ijk_to_ras, seed=2, frames=16, size=144, mm_per_pixel=0.6)


@pytest.fixture(scope="module")
def run(head, case):
    """States and result from 15 mm and 10 degrees off."""
    registration = RigidRegistration(head[0], head[3], case.sweep, initial=displaced(case, 15, 10, 5), seed=1)
    return list(registration), registration.result


def test_finds_the_pose_and_trusts_it(case, run):
    _, result = run
    assert case.error_mm(result.mri_to_reference) < 1.0
    assert result.verdict.verdict == "trusted"
    assert result.frames_used == 16
    assert case.error_mm(result.mri_to_reference) < result.verdict.expected_error_worst_mm


def test_progress_grows_and_every_state_has_a_rigid_pose(run):
    states, _ = run
    progress = [state.progress for state in states]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert len(states) > 12
    for state in states:
        rotation = state.mri_to_reference[:3, :3]
        assert torch.allclose(rotation @ rotation.T, torch.eye(3, dtype=torch.float64), atol=1e-9)


def test_the_report_is_plain_and_complete(run):
    import json

    report = json.loads(json.dumps(run[1].report()))
    needed = {"verdict", "reasons", "expected_error_mm", "expected_error_worst_mm", "calibrated_on", "similarity"}
    assert needed | {"seconds", "frames_used", "frames_skipped", "mri_to_reference"} <= set(report)
    assert np.shape(report["mri_to_reference"]) == (4, 4)


def test_one_seed_gives_one_answer_to_the_last_digit(head, case):
    tiny = Settings(search=SearchSettings(samples=1024, around=16, copies=2, starts=6))
    ends = [
        register(head[0], head[3], case.sweep, initial=displaced(case, 5, 4, 1), seed=3, settings=tiny)
        for _ in range(2)
    ]
    assert torch.equal(ends[0].mri_to_reference, ends[1].mri_to_reference)
    assert ends[0].evidence == ends[1].evidence


def test_mirrored_frames_are_never_trusted(head, case):
    flipped = dataclasses.replace(case.sweep, frames=case.sweep.frames.flip(2), mask=case.sweep.mask.flip(2))
    result = register(head[0], head[3], flipped, initial=displaced(case, 8, 6, 2), settings=QUICK)
    assert result.verdict.verdict != "trusted"
    assert result.verdict.reasons


@pytest.mark.parametrize(
    ("method", "kind"), [("ncc", "mri"), ("mind", "mri"), ("ngf", "mri"), ("mi", "mri"), ("rendered", "mri")]
)
def test_other_methods_run_to_the_end_and_stay_near(head, case, method, kind):
    tiny = Settings(
        search=SearchSettings(samples=2048, around=32, copies=4, starts=12), translation_mm=6, rotation_deg=5
    )
    few = case.sweep.subset(range(0, 16, 3))
    result = register(head[0], head[3], few, initial=displaced(case, 3, 2, 1), kind=kind, method=method, settings=tiny)
    assert result.method == method
    assert result.verdict.verdict != "trusted"
    assert "nothing like this run" in result.verdict.calibrated_on
    assert case.error_mm(result.mri_to_reference) < 3.0


def test_noise_is_rejected(head, case):
    noise = torch.rand(case.sweep.frames.shape, generator=torch.Generator().manual_seed(0))
    result = register(
        head[0],
        head[3],
        dataclasses.replace(case.sweep, frames=noise),
        initial=displaced(case, 8, 6, 2),
        settings=QUICK,
    )
    assert result.verdict.verdict == "rejected"


def test_far_outside_of_the_volume_is_rejected_without_a_search(head, case):
    far = np.eye(4)
    far[:3, 3] = 900.0
    states = list(registration := RigidRegistration(head[0], head[3], case.sweep, initial=far))
    assert len(states) == 1
    assert registration.result.verdict.verdict == "rejected"
    assert "overlap" in registration.result.verdict.reasons[0]


def test_one_frame_is_never_better_than_check_and_names_its_weakest_direction(head, case):
    result = register(head[0], head[3], case.sweep.subset([8]), initial=displaced(case, 2, 2, 4), settings=QUICK)
    assert result.verdict.verdict in ("check", "rejected")
    assert any("weakest" in reason for reason in result.verdict.reasons)


@pytest.mark.parametrize(
    ("volume", "options", "words"),
    [
        (np.full((9, 9, 9), np.nan), {}, "NaN"),
        (np.zeros((9, 9)), {}, "3-D"),
        (np.ones((9, 9, 9)), {}, "constant"),
        (np.random.default_rng(0).random((9, 9, 9)), {"initial": np.diag([2, 1, 1, 1])}, "initial transform"),
        (np.random.default_rng(0).random((9, 9, 9)), {"kind": "xray"}, "kind"),
        (np.random.default_rng(0).random((9, 9, 9)), {"method": "magic"}, "method"),
    ],
)
def test_bad_input_gets_one_sentence(case, volume, options, words):
    with pytest.raises(InputError, match=words):
        RigidRegistration(volume, np.eye(4), case.sweep, **options)


def test_a_benchmark_sweep_of_a_whole_head(shared_data):
    import json

    from diffus.sweep.sweep import read_sweep

    sitk = pytest.importorskip("SimpleITK")
    sweep = read_sweep(shared_data / "ius_benchmark" / "colin27_106.igs.mha")
    truth = json.loads((shared_data / "ius_benchmark" / "colin27_106.truth.json").read_text())
    case = SimulatedCase(sweep, np.array(truth["mri_to_reference"]), np.array(truth["targets_mri_ras"]))
    image = sitk.ReadImage(str(shared_data / "mri" / "colin27_ch2_t1_1mm.nii.gz"))
    lps = np.eye(4)
    lps[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * image.GetSpacing()
    lps[:3, 3] = image.GetOrigin()
    result = register(
        sitk.GetArrayFromImage(image),
        np.diag([-1, -1, 1, 1]) @ lps,
        sweep,
        initial=displaced(case, 18, 12, 3),
    )
    assert case.error_mm(result.mri_to_reference) < 0.5
    assert result.verdict.verdict == "trusted"


def test_a_still_probe_counts_as_one_frame(case):
    still = case.sweep.subset([0] * 6)
    assert frames_apart(still) == 1
    jitter = still.image_to_reference.clone()
    jitter[:, 0, 3] += 0.1 * torch.arange(6)
    assert frames_apart(dataclasses.replace(still, image_to_reference=jitter)) == 2
    assert frames_apart(case.sweep) == 16


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, ""),
        ({"kind": "mri-t2"}, "volumes of kind mri-t2"),
        ({"kind": "us"}, "volumes of kind us"),
        ({"method": "ngf"}, "the method ngf"),
        ({"settings": Settings(translation_mm=40.0)}, "a search other than the standard one"),
    ],
)
def test_what_was_not_calibrated_is_named(head, case, options, words):
    registration = RigidRegistration(head[0], head[3], case.sweep, **options)
    assert registration._uncalibrated() == words


def test_ultrasound_cut_from_a_volume_was_not_calibrated(head, case):
    cut = dataclasses.replace(case.sweep, report=dataclasses.replace(case.sweep.report, from_volume=True))
    assert RigidRegistration(head[0], head[3], cut)._uncalibrated() == "3-D ultrasound volumes"
