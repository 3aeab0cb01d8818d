"""Statistics of frames against known distributions and other libraries, matching, and the command `realism`."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.fit.matching import AppearanceMatch, rocked
from diffus.io.transforms import write_transform
from diffus.metrics.frames import frame_distances, frame_statistics
from diffus.metrics.images import histogram_distance, patch_kl
from diffus.render.renderer import UltrasoundRenderer
from diffus.studies.craniotomy import CRANIOTOMIES, brain_of, craniotomy
from diffus.sweep.probe_sweep import in_fan, polar_sweep
from diffus.sweep.sweep import TrackedSweep, read_sweep, write_sweep
from scipy import ndimage, stats
from support.commands import run
from support.phantoms import phantom, pose_from, probe_of

PROBE = probe_of("convex", rays=160, samples=400, depth_mm=60.0, mm_per_pixel=0.4)
GEOMETRY = PROBE.slice_geometry()
MASK = in_fan(PROBE, GEOMETRY.pixel_to_probe, GEOMETRY.rows, GEOMETRY.columns)


def layers(maps, x, y, z):
    maps[3] *= torch.where(y > 30, 0.5, 1.0)


@pytest.fixture(scope="module")
def medium():
    return phantom(layers, size_mm=90.0)


def frames_of(medium, probe=PROBE, **settings):
    poses = rocked(pose_from((0.0, 0.0, 0.0), (0.0, 0.0, 0.0)), 3)
    with torch.no_grad():
        return UltrasoundRenderer(probe, **settings)(medium, poses), poses


def test_histogram_distance_is_scipys():
    generator = torch.Generator().manual_seed(0)
    a = torch.rand(4000, generator=generator, dtype=torch.float64) ** 2
    b = 0.2 + 0.5 * torch.rand(3000, generator=generator, dtype=torch.float64)
    assert histogram_distance(a, b).item() == pytest.approx(stats.wasserstein_distance(a, b), abs=2e-3)
    assert histogram_distance(a, a + 0.1).item() == pytest.approx(0.1)
    with pytest.raises(InputError, match="at least one pixel"):
        histogram_distance(a, b[:0])


def test_patch_kl_is_the_mean_entropy_of_the_blocks():
    generator = np.random.default_rng(0)
    a, b = generator.random((2, 70, 100)), generator.random((3, 70, 100)) ** 1.5
    values = []
    for row in range(2):
        for column in range(3):
            cut = np.s_[:, 32 * row : 32 * row + 32, 32 * column : 32 * column + 32]
            counts = [np.histogram(x[cut], 50, (0, 1))[0] for x in (a, b)]
            values.append(stats.entropy(counts[0] + 0.5, counts[1] + 0.5))
    found = patch_kl(torch.from_numpy(a), torch.from_numpy(b))
    assert found.item() == pytest.approx(np.mean(values), rel=1e-9)
    mask = torch.zeros(70, 100, dtype=torch.bool)
    mask[:32, 32:64] = True
    assert patch_kl(torch.from_numpy(a), torch.from_numpy(b), mask).item() == pytest.approx(values[1], rel=1e-9)
    assert patch_kl(torch.from_numpy(a), torch.from_numpy(a)).item() == 0.0
    with pytest.raises(InputError, match="No block"):
        patch_kl(torch.from_numpy(a), torch.from_numpy(b), mask & False)


def test_speckle_of_the_renderer_is_fully_developed(medium):
    frames, _ = frames_of(medium, dynamic_range_db=60.0)
    found = frame_statistics(frames, MASK, GEOMETRY.pixel_to_probe, dynamic_range_db=60.0)
    # Taking the local mean of the logarithm away, as of anatomy, also takes a little of the speckle.
    assert found.speckle_snr == pytest.approx(1.913, rel=0.08)
    assert found.nakagami_m == pytest.approx(1.0, rel=0.15)
    wrong = frame_statistics(frames, MASK, GEOMETRY.pixel_to_probe, dynamic_range_db=30.0)
    assert wrong.speckle_snr > 1.5 * found.speckle_snr


def test_widths_are_those_of_a_known_texture():
    white = np.random.default_rng(0).standard_normal((4, GEOMETRY.rows, GEOMETRY.columns))
    blurred = ndimage.gaussian_filter(white, (0, 1.5, 3.0), mode="wrap")
    frames = torch.from_numpy(0.5 + 0.1 * blurred / blurred.std()).float()
    found = frame_statistics(frames, MASK, GEOMETRY.pixel_to_probe)
    full_width = 2 * np.sqrt(2 * np.log(2)) * np.sqrt(2) * GEOMETRY.mm_per_pixel
    assert found.axial_width_mm == pytest.approx(1.5 * full_width, rel=0.1)
    assert found.lateral_width_mm == pytest.approx(3.0 * full_width, rel=0.15)


def test_contrast_tells_two_tissues_from_one(medium):
    flat = phantom(size_mm=90.0)
    contrast = phantom(lambda maps, x, y, z: maps[3].mul_(torch.where(x > 12, 3.0, 1.0)), size_mm=90.0)
    one, two = (
        frame_statistics(
            frames_of(m, tgc_reach=1.0)[0], MASK, GEOMETRY.pixel_to_probe, dynamic_range_db=60.0
        ).gcnr  # a far field that sinks is contrast too
        for m in (flat, contrast)
    )
    assert one < 0.6
    assert two > one + 0.1


def test_black_frames_are_refused():
    with pytest.raises(InputError, match="too little tissue"):
        frame_statistics(torch.zeros(2, GEOMETRY.rows, GEOMETRY.columns), MASK, GEOMETRY.pixel_to_probe)


def test_matching_finds_the_display_of_another_seed(medium):
    real, poses = frames_of(medium, seed=3, gain_db=-9.0, dynamic_range_db=48.0, tgc_db_per_cm=4.0)
    sweep = TrackedSweep.from_arrays(real.numpy(), (poses @ GEOMETRY.pixel_to_probe).numpy(), mask=MASK.numpy())
    views = polar_sweep(sweep, PROBE, GEOMETRY.pixel_to_probe, rays=PROBE.rays, samples=PROBE.samples)
    search = AppearanceMatch(
        real, MASK, views, medium, poses, frequencies_mhz=(2.5, 5.0), cycles=(2.0,), apertures=(1.0,)
    )
    states = list(search)
    assert [state.step for state in states] == [1, 2]
    assert search.best.probe.frequency_mhz == 5.0
    assert search.best.settings.dynamic_range_db == pytest.approx(48.0, abs=6.0)
    # Rate and reach of the time gain stand for each other, and noise that is black is not seen: pictures are compared.
    fit_names = ("gain_db", "dynamic_range_db", "tgc_db_per_cm", "tgc_reach", "noise_db", "black_level")
    before = frame_distances(real, frames_of(medium)[0], MASK)
    chosen = {name: getattr(search.best.settings, name) for name in fit_names}
    after = frame_distances(real, frames_of(medium, search.best.probe, **chosen)[0], MASK)
    assert after.histogram_distance < 0.25 * before.histogram_distance
    assert after.pkl < 0.5 * before.pkl


def test_rocking_turns_about_the_face():
    pose = pose_from((20.0, 30.0, 10.0), (5.0, 6.0, 7.0))
    poses = rocked(pose, 5, degrees=10.0)
    assert torch.allclose(poses[2], pose)
    assert torch.allclose(poses[:, :3, 3], pose[:3, 3].expand(5, 3))
    assert torch.rad2deg(torch.acos((poses[0, :3, 1] * pose[:3, 1]).sum())).item() == pytest.approx(10.0)
    assert torch.allclose(rocked(pose, 1)[0], pose)


@pytest.fixture
def case(tmp_path, medium):
    """A sweep, a label volume and a pose on file."""
    import SimpleITK as sitk

    real, poses = frames_of(medium, gain_db=-6.0)
    sweep = TrackedSweep.from_arrays(real.numpy(), (poses @ GEOMETRY.pixel_to_probe).numpy(), mask=MASK.numpy())
    write_sweep(sweep, tmp_path / "sweep.igs.mha")
    labels = np.zeros((60, 60, 60), np.uint8)
    labels[:, 5:, :] = 5
    labels[20:30, 30:36, 20:30] = 8
    image = sitk.GetImageFromArray(labels)
    image.SetSpacing((2.0, 2.0, 2.0))
    sitk.WriteImage(image, str(tmp_path / "labels.nrrd"))
    pose = np.diag([-1.0, -1.0, 1.0, 1.0])
    pose[:3, 3] = [-60.0, -12.0, 60.0]
    write_transform(tmp_path / "pose.tfm", pose)
    return tmp_path


def invoke(case, *extra):
    options = {"real": case / "sweep.igs.mha", "volume": case / "labels.nrrd", "kind": "labels", "frames": 2}
    return run("study realism", {**options, "output": case / "table.csv"}, *extra)


def test_the_command_writes_table_and_figure_with_fitted_settings(case):
    pytest.importorskip("matplotlib")
    written = {"probe": {"type": "linear", "frequency_mhz": 4.0, "depth_mm": 30.0, "focus_mm": 20.0, "width_mm": 30.0}}
    (case / "fitted.json").write_text(json.dumps(written | {"settings": {"gain_db": -10.0}, "scores": {}}))
    done = invoke(case, "--pose", case / "pose.tfm", "--settings", case / "fitted.json", "--figure", case / "f.png")
    assert done.exit_code == 0, done.output
    header, *rows = csv.reader((case / "table.csv").read_text().splitlines())
    assert [row[0] for row in rows] == [
        "real",
        "real, even against odd frames",
        "real, first against second half",
        "simulated, before",
        "simulated, after",
    ]
    grey = header.index("mean_grey")
    assert float(rows[4][grey]) < float(rows[3][grey]) - 0.05
    ratio, patches = header.index("patches_ratio"), header.index("patches")
    assert float(rows[3][ratio]) == pytest.approx(float(rows[3][patches]) / float(rows[2][patches]), rel=0.01)
    assert "4 MHz" in done.output
    assert (case / "f.png").stat().st_size > 5000


def test_renders_on_file_are_compared_in_both_fans(case):
    sweep = read_sweep(case / "sweep.igs.mha")
    write_sweep(replace(sweep, frames=0.5 * sweep.frames), case / "darker.igs.mha")
    # The same frames on a larger picture of other pixels: they are found by the fan in them.
    shift = torch.eye(4, dtype=torch.float64)
    shift[:2, 3] = torch.tensor([-20.0, -12.0])
    moved = torch.nn.functional.pad(sweep.frames, (20, 30, 12, 8))
    mask = torch.nn.functional.pad(sweep.mask, (20, 30, 12, 8))
    write_sweep(
        replace(sweep, frames=moved, mask=mask, image_to_reference=sweep.image_to_reference @ shift),
        case / "moved.igs.mha",
    )
    done = run(
        "study realism",
        {"real": case / "sweep.igs.mha", "frames": 2, "output": case / "table.csv"},
        *("--simulated", case / "sweep.igs.mha", "--simulated", case / "darker.igs.mha"),
        *("--simulated", case / "moved.igs.mha"),
    )
    assert done.exit_code == 0, done.output
    header, *rows = csv.reader((case / "table.csv").read_text().splitlines())
    found = {row[0]: dict(zip(header[1:], row[1:])) for row in rows}
    same, darker, moved = (found[f"simulated, {name}.igs.mha"] for name in ("sweep", "darker", "moved"))
    assert float(same["patches"]) == float(same["histogram_distance"]) == 0.0
    assert float(darker["patches_ratio"]) > 3
    assert float(moved["histogram_distance"]) < 0.1 * float(darker["histogram_distance"])
    assert float(moved["patches"]) < 0.3 * float(darker["patches"])


def test_a_probe_on_the_brain_is_judged_without_matching(tmp_path):
    import SimpleITK as sitk

    axis = np.arange(70) * 2.0 - 69.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    away = np.sqrt(x**2 + y**2 + z**2)
    rng = np.random.default_rng(0)
    head = np.where(away < 50, np.where(away < 40, 1.0, 0.7), np.where((away > 58) & (away < 64), 1.1, 0.1))
    head = np.where(np.abs(away - 10) < 6, 0.1, head) + 0.01 * rng.standard_normal(head.shape)
    image = sitk.GetImageFromArray((100 * head).astype(np.float32))
    image.SetSpacing((2.0, 2.0, 2.0))
    image.SetOrigin((69.0, 69.0, -69.0))
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))
    sitk.WriteImage(image, str(tmp_path / "head.nrrd"))
    frames, poses = frames_of(phantom(layers, size_mm=90.0))
    sweep = TrackedSweep.from_arrays(frames.numpy(), (poses @ GEOMETRY.pixel_to_probe).numpy(), mask=MASK.numpy())
    write_sweep(sweep, tmp_path / "sweep.igs.mha")
    options = {"real": tmp_path / "sweep.igs.mha", "volume": tmp_path / "head.nrrd", "kind": "mri", "frames": 2}
    windows = ("--window", "left-frontal", "--window", "right-temporal", "--no-match")
    done = run("study realism", {**options, "output": tmp_path / "table.csv"}, *windows)
    assert done.exit_code == 0, done.output
    header, *rows = csv.reader((tmp_path / "table.csv").read_text().splitlines())
    assert rows[-1][0] == "simulated, before"
    assert float(rows[-1][header.index("grey_1")]) > 0.1
    done = run("study realism", {**options, "output": tmp_path / "other.csv"}, "--window", "subcostal")
    assert done.exit_code == 2
    assert "is not for --kind mri" in done.output


@pytest.mark.parametrize("stripped", [True, False])
def test_the_brain_is_found_under_the_skull(stripped):
    axis = np.arange(90) * 1.5 - 67.0
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    away = np.sqrt(x**2 + (y / 1.1) ** 2 + z**2)
    head = np.where(away < 48, 0.7, 0.1)
    head = np.where(away < 40, 1.0, head)
    head = np.where((away > 48) & (np.abs(x) < 3) & (away < 56), 0.7, head) if not stripped else head
    head = np.where((away > 54) & (away < 62), 1.3, head) if not stripped else np.where(away < 50, head, 0.0)
    head = np.where(away < 8, 0.1, head) + 0.01 * np.random.default_rng(0).standard_normal(head.shape)
    matrix = np.diag([1.5, 1.5, 1.5, 1.0])
    matrix[:3, 3] = -67.0
    brain = brain_of(100 * head, matrix)
    truth = away < 48
    assert 2 * (brain & truth).sum() / (brain.sum() + truth.sum()) > 0.95
    probe = probe_of("convex", radius_mm=10.0, fov_deg=80.0)
    for window in CRANIOTOMIES:
        pose = craniotomy(brain, matrix, probe, window)
        assert torch.det(pose[:3, :3]).item() == pytest.approx(1.0)
        assert np.linalg.norm(pose[:3, 3] / torch.tensor([1.0, 1.1, 1.0])) == pytest.approx(46.7, abs=2.5)  # pressed on
        inward = -pose[:3, 3] / pose[:3, 3].norm()
        assert (inward @ pose[:3, 1]).item() > 0.99


def test_the_command_refuses_in_one_sentence(case):
    import SimpleITK as sitk

    (case / "bad.json").write_text("{}")
    probe = {"type": "linear", "frequency_mhz": 4.0, "depth_mm": 30.0, "focus_mm": 20.0, "width_mm": 30.0}
    (case / "odd.json").write_text(json.dumps({"probe": probe, "settings": {"speckle": "no"}}))
    image = np.random.default_rng(0).random((9, 9, 9), dtype=np.float32)
    sitk.WriteImage(sitk.GetImageFromArray(image), str(case / "image.nrrd"))
    write_sweep(read_sweep(case / "sweep.igs.mha").subset([0]), case / "one.igs.mha")
    pose = ("--pose", case / "pose.tfm")
    for extra, words in (
        ((*pose, "--settings", case / "bad.json"), "no file of settings"),
        ((*pose, "--settings", case / "odd.json"), "speckle must be true or false"),
        ((*pose, "--volume", case / "image.nrrd"), "must be whole numbers"),
        ((*pose, "--real", case / "one.igs.mha"), "has one frame"),
        (("--organ", "spline"), "no label 'spline'"),
        ((*pose, "--settings", case / "bad.json", "--matched", case / "m.json"), "leave one of them out"),
        ((*pose, "--no-match", "--matched", case / "m.json"), "without --no-match"),
        (("--window", "left-frontal"), "is not for --kind labels"),
        ((*pose, "--mask", case / "labels.nrrd"), "is for --kind mri"),
        ((*pose, "--judge", "first"), "has 3 frames"),
    ):
        done = invoke(case, *extra)
        assert done.exit_code == 2
        assert words in done.output
        assert not (case / "table.csv").exists()
