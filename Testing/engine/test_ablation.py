"""The ablation: its rows, scores and files; fans found in reconstructed volumes; folders like ReMIND2Reg; bad input."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.pose import transform_points
from diffus.io.transforms import write_transform
from diffus.io.volumes import read_volume
from diffus.metrics import images as metrics
from diffus.probe import ConvexProbe
from diffus.render.renderer import UltrasoundRenderer
from diffus.studies.ablation import ROWS, Ablation, displayed, intensity_medium, phase_correlated
from diffus.studies.cases import find_cases
from diffus.studies.fan_frames import frames_of_sweep, frames_of_volume
from diffus.sweep.sweep import TrackedSweep, write_sweep
from PIL import Image
from support.commands import run
from support.phantoms import phantom, pose_from
from support.remind2reg import write_case

PROBE = ConvexProbe(20.0, 60.0, frequency_mhz=5.0, depth_mm=50.0, focus_mm=25.0, mm_per_pixel=0.5, rays=64, samples=200)
MRI_TO_REFERENCE = pose_from((5.0, -8.0, 12.0), (10.0, -4.0, 7.0))


def tissue(maps, x, y, z):
    """A slab, a fluid ball and a bright ball."""
    ball = ((x - 6) ** 2 + (y - 25) ** 2 + z**2) < 36
    bright = ((x + 8) ** 2 + (y - 30) ** 2 + z**2) < 25
    maps[0] += 0.06 * (y > 38)
    maps[0][ball], maps[3][ball] = 1.5, 0.01
    maps[0][bright], maps[3][bright] = 1.68, 3.0


@pytest.fixture(scope="module")
def medium():
    return phantom(tissue)


@pytest.fixture(scope="module")
def sweep(medium):
    """Four frames that the default renderer made of the phantom, tracked in another frame than its own."""
    renderer = UltrasoundRenderer(PROBE, seed=3)
    pixel_to_probe = renderer.probe.slice_geometry().pixel_to_probe
    poses = torch.stack([pose_from((0.0, 0.0, 0.0), (0.0, 0.0, shift)) for shift in (-4.0, -1.0, 1.0, 4.0)])
    images = torch.cat([renderer(medium, pose) for pose in poses]).clamp(min=1 / 255) * scan_mask(renderer)
    # Room around the fan, as a scanner leaves it.
    images = torch.nn.functional.pad(images, (10, 10, 10, 10))
    padded_to_image = torch.eye(4, dtype=torch.float64)
    padded_to_image[:2, 3] = -10
    return TrackedSweep.from_arrays(images, MRI_TO_REFERENCE @ poses @ pixel_to_probe @ padded_to_image)


def scan_mask(renderer):
    return renderer.plan(torch.float32, torch.device("cpu")).inside


# --- the engine


def test_the_fan_of_a_sweep_gives_probe_and_pose(sweep):
    view = frames_of_sweep(sweep, MRI_TO_REFERENCE, count=3, probe=PROBE)
    assert len(view) == 3
    assert view.probe.radius_mm == pytest.approx(20, abs=0.7)
    assert view.probe.fov_deg == pytest.approx(60, abs=0.7)
    assert view.probe.rays == 64
    true = pose_from((0.0, 0.0, 0.0), (0.0, 0.0, -4.0))
    assert (view.probe_to_ras[0] - true).abs().max() < 0.4
    middle = view.pixels_ras(0)[60, view.frames.shape[2] // 2]
    assert middle[2].item() == pytest.approx(-4.0, abs=0.01)


def test_a_polar_image_lies_in_the_frame_where_the_renderer_puts_it(medium, sweep):
    view = frames_of_sweep(sweep, MRI_TO_REFERENCE, probe=PROBE)
    renderer = UltrasoundRenderer(view.probe, seed=3)
    polar = renderer.polar(medium, renderer.points_ras(view.probe_to_ras[1:2]))[0]
    assert metrics.ncc(view.from_polar(polar), view.frames[1], view.mask[1]) > 0.7


def test_the_row_that_made_the_frames_wins_and_every_score_says_so(medium, sweep):
    view = frames_of_sweep(sweep, MRI_TO_REFERENCE, probe=PROBE)
    volume = medium.maps[3].numpy()
    settings = UltrasoundRenderer(PROBE, seed=3).settings
    run = Ablation([view], lambda: medium, lambda: intensity_medium(volume, medium.ijk_to_ras), settings)
    steps = list(run)
    assert [step.done for step in steps] == list(range(1, 7 * 4 + 1))
    assert steps[-1].total == 28
    result = run.result
    assert [row.row for row in result.rows] == list(ROWS)
    assert 0.3 < result.fan_fraction < 0.7
    assert result.volume_fraction == 1
    scores = {row.row.name: {name: values.mean() for name, values in row.scores.items()} for row in result.rows}
    best = scores.pop("default renderer (scattering)")
    for other in scores.values():
        for after in ("", "_shifted"):
            assert best[f"ncc{after}"] > other[f"ncc{after}"]
            assert best[f"ssim{after}"] > other[f"ssim{after}"]
            assert best[f"mse{after}"] < other[f"mse{after}"]
            assert best[f"mae{after}"] < other[f"mae{after}"]
    assert best["shift_px"] < 1.5
    sampled, real = result.rows[0].images[0], result.real[0]
    assert result.rows[0].scores["ncc"][0] == pytest.approx(metrics.ncc(sampled, real, result.masks[0]).item())


def test_a_slice_of_the_volume_is_the_first_row(medium, sweep):
    """Against the volume's own numbers at the pixels, found without a medium."""
    view = frames_of_sweep(sweep, MRI_TO_REFERENCE, probe=PROBE, count=1)
    volume = medium.maps[3].numpy()
    run = Ablation([view], lambda: medium, lambda: intensity_medium(volume, medium.ijk_to_ras))
    list(run)
    result = run.result
    ras_to_ijk = torch.linalg.inv(medium.ijk_to_ras)
    index = transform_points(ras_to_ijk, view.pixels_ras(0).reshape(-1, 3)).round().long().reshape(*real_shape(view), 3)
    inside = result.masks[0]
    i, j, k = index[inside].unbind(-1)
    expected = torch.zeros(inside.shape)
    expected[inside] = torch.from_numpy(volume)[k, j, i]
    assert metrics.ncc(expected, result.rows[0].images[0], inside) > 0.93  # nearest against trilinear


def test_delivered_slices_stand_beside_the_frame_that_they_are_of(medium, sweep):
    view = frames_of_sweep(sweep, MRI_TO_REFERENCE, probe=PROBE)
    settings = UltrasoundRenderer(PROBE, seed=3).settings
    run = Ablation([view], lambda: medium, settings=settings, pictured=lambda count: [count - 1, 0])
    list(run)
    pictures = run.result.pictures
    assert [picture.number for picture in pictures] == [3, 0]
    likeness = []
    for picture in pictures:
        assert torch.equal(picture.real, view.frames[picture.number] * view.mask[picture.number])
        same = [fan_alone(image) for image in (picture.real, picture.simulated, picture.paper)]
        everywhere = torch.ones_like(same[0], dtype=torch.bool)
        likeness.append([metrics.ncc(same[0], image, everywhere).item() for image in same[1:]])
    assert min(default for default, _ in likeness) > 0.8
    assert all(default > paper for default, paper in likeness)


def fan_alone(image):
    """What is not black of an image, brought to one size, smooth enough that no speckle is compared."""
    rows, columns = (torch.nonzero(image.gt(0).any(axis)).flatten() for axis in (1, 0))
    cut = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return torch.nn.functional.interpolate(cut[None, None], (24, 24), mode="area")[0, 0]


def real_shape(view):
    return view.frames.shape[1:]


def test_label_volumes_have_no_rows_without_mapping(medium, sweep):
    run = Ablation([frames_of_sweep(sweep, MRI_TO_REFERENCE, count=1, probe=PROBE)], lambda: medium)
    list(run)
    assert [row.row for row in run.result.rows] == [row for row in ROWS if row.mapped]


def test_frames_off_the_volume_are_left_out_or_refused(medium, sweep):
    away = sweep.image_to_reference.clone()
    away[0, :3, 3] += 500
    off = TrackedSweep.from_arrays(sweep.frames, away, mask=sweep.mask)
    run = Ablation([frames_of_sweep(off, MRI_TO_REFERENCE, probe=PROBE)], lambda: medium)
    list(run)
    assert run.result.frames_left_out == 1
    assert len(run.result.real) == 3
    with pytest.raises(InputError, match="lies in the volume"):
        list(Ablation([frames_of_sweep(sweep, pose_from((0, 0, 0), (900, 0, 0)), probe=PROBE)], lambda: medium))


def test_the_display_is_one_for_all_frames():
    generator = torch.Generator().manual_seed(0)
    images = [5 + 20 * torch.rand(40, 40, generator=generator), 15 + torch.rand(40, 40, generator=generator)]
    mask = torch.ones(40, 40, dtype=torch.bool)
    mask[:5] = False
    first, second = displayed(images, [mask, mask])
    assert first[mask].quantile(0.02) < 0.05
    assert first[mask].max() == 1
    assert second[mask].max() - second[mask].min() < 0.06
    assert (first[:5] == 0).all()


def test_phase_correlation_finds_the_shift_in_spite_of_the_fan():
    generator = torch.Generator().manual_seed(0)
    texture = torch.nn.functional.avg_pool2d(torch.rand(1, 1, 100, 100, generator=generator), 5, 1, 2)[0, 0]
    mask = torch.zeros(100, 100, dtype=torch.bool)
    mask[15:85, 20:80] = True
    image, real = texture * mask, texture.roll((6, -4), (0, 1)) * mask
    moved, onto, both, shift = phase_correlated(image, real, mask)
    assert shift.tolist() == [6, -4]
    assert metrics.ncc(moved, onto, both) > 0.999
    assert metrics.ncc(image, real, mask) < 0.5


def test_intensities_become_a_medium_of_positive_numbers():
    volume = np.random.default_rng(0).normal(500, 100, (12, 12, 12))
    volume[0] = 0
    channel = intensity_medium(volume, np.eye(4)).maps[0]
    assert channel.min() == pytest.approx(0.01)
    assert channel.max() == pytest.approx(1.0)
    assert np.corrcoef(channel.numpy().ravel(), volume.ravel())[0, 1] > 0.97


# --- 3-D ultrasound and data sets


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """A folder with three cases: all modalities; without T2; without ceT1; and one without ultrasound."""
    folder = tmp_path_factory.mktemp("ReMIND2Reg")
    (folder / "imagesTr").mkdir()
    fans = [
        write_case(folder / "imagesTr", number, size=48, mm=2.0, tilt_deg=tilt, skip=skip, seed=number)
        for number, tilt, skip in ((0, 20.0, ""), (1, -35.0, "0002"), (7, 100.0, "0001"), (8, 0.0, "0000"))
    ]
    (folder / "ReMIND2Reg_dataset.json").write_text("{}")
    return folder, fans


@pytest.mark.parametrize(("number", "index"), [(0, 0), (7, 2)])
def test_the_fan_of_a_reconstructed_volume_is_found(dataset, number, index):
    folder, fans = dataset
    scan = read_volume(folder / "imagesTr" / f"ReMIND2Reg_{number:04d}_0000.nii.gz")
    views, truth = frames_of_volume(scan.array, scan.ijk_to_ras, slices=5), fans[index]
    assert len(views) == 5
    for view in views:
        assert view.probe.fov_deg == pytest.approx(truth.fov_deg, abs=4)
        assert view.probe.depth_mm == pytest.approx(truth.depth_mm, abs=3)
        apex = view.probe_to_ras[0] @ torch.tensor([0.0, -view.probe.radius_mm, 0.0, 1.0], dtype=torch.float64)
        assert np.linalg.norm(truth.apex - apex[:3].numpy(), axis=1).min() < 3.0
        assert view.probe_to_ras[0, :3, 1].numpy() @ truth.depth_axis > np.cos(np.radians(3))


def test_a_box_of_speckle_has_no_fan():
    noise = np.zeros((40, 40, 40))
    noise[8:32, 8:32, 8:32] = np.random.default_rng(0).rayleigh(50, (24, 24, 24)) + 1
    with pytest.raises(InputError, match="No ultrasound fan"):
        frames_of_volume(noise, np.eye(4))


def test_cases_are_found_with_what_they_have(dataset, tmp_path):
    folder, _ = dataset
    for place in (folder, folder / "imagesTr"):
        cases, unusable = find_cases(place)
        assert [case.name for case in cases] == ["ReMIND2Reg_0000", "ReMIND2Reg_0001", "ReMIND2Reg_0007"]
        assert [list(case.ultrasound) for case in cases] == [["intraoperative"]] * 3
        assert [list(case.mri) for case in cases] == [["ceT1", "T2"], ["ceT1"], ["T2"]]
        assert [case.choose(None) for case in cases] == ["ceT1", "ceT1", "T2"]
        assert [case.choose("T2") for case in cases] == ["T2", None, "T2"]
        assert unusable == ["ReMIND2Reg_0008"]
    with pytest.raises(InputError, match="no case"):
        find_cases(tmp_path)


def read_table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_case_of_a_folder_and_all_together(dataset, tmp_path):
    folder, _ = dataset
    table, figure = tmp_path / "table.csv", tmp_path / "figure.png"
    result = run("study ablation", {"cases": folder, "frames": 2, "output": table, "figure": figure})
    assert result.exit_code == 0, result.output
    rows = read_table(table)
    cases = ["ReMIND2Reg_0000 ceT1", "ReMIND2Reg_0001 ceT1", "ReMIND2Reg_0007 T2", "all cases"]
    assert [row["case"] for row in rows] == [case for case in cases for _ in ROWS]
    assert [row["row"] for row in rows[:7]] == [row.name for row in ROWS]
    together = [np.mean([float(row["ncc"]) for row in rows[n:21:7]]) for n in range(7)]
    assert [float(row["ncc"]) for row in rows[21:]] == pytest.approx(together, abs=2e-4)
    assert [row["frames"] for row in rows[20:22]] == ["2", "6"]
    assert "ReMIND2Reg_0008" in result.output
    assert "fan mask" in result.output
    pixels = np.asarray(Image.open(figure))
    assert pixels.shape[1] > pixels.shape[0] > 200
    assert pixels.std() > 20


def test_only_one_modality(dataset, tmp_path):
    table = tmp_path / "table.csv"
    result = run("study ablation", None, "--cases", dataset[0], "--modality", "T2", "--frames", 1, "--output", table)
    assert result.exit_code == 0, result.output
    assert {row["case"] for row in read_table(table)} == {"ReMIND2Reg_0000 T2", "ReMIND2Reg_0007 T2", "all cases"}
    assert "ReMIND2Reg_0001: no T2" in result.output


# --- the command on one sweep


@pytest.fixture
def case(sweep, dataset, tmp_path, monkeypatch):
    """A folder with sweep.igs.mha, mri.nii.gz and initial.tfm; their contents match in place alone."""
    monkeypatch.chdir(tmp_path)
    write_sweep(sweep, "sweep.igs.mha")
    Path("mri.nii.gz").write_bytes((dataset[0] / "imagesTr" / "ReMIND2Reg_0000_0001.nii.gz").read_bytes())
    write_transform("initial.tfm", MRI_TO_REFERENCE.numpy())
    return {"volume": "mri.nii.gz", "sweep": "sweep.igs.mha", "initial": "initial.tfm", "output": "table.csv"}


def arguments(options):
    return [part for name, value in options.items() if value is not None for part in (f"--{name}", value)]


def test_one_sweep_in_one_table(case):
    figures = ("--figure", "figure.png", "--pictures", "pictures.png")
    result = run("study ablation", None, *arguments(case), "--frames", 2, *figures)
    assert result.exit_code == 0, result.output
    rows = read_table("table.csv")
    assert [row["row"] for row in rows] == [row.name for row in ROWS]
    assert {row["case"] for row in rows} == {"sweep.igs.mha"}
    for row in rows:
        assert row["frames"] == "2"
        assert 0 < float(row["mse"]) < 1
        assert -1 <= float(row["ncc_shifted"]) <= 1
        assert float(row["fan_percent_of_pixels"]) > 30
    assert Path("figure.png").stat().st_size > 5000
    pictures = np.asarray(Image.open("pictures.png").convert("L"))
    assert pictures.std() > 20
    assert pictures.shape[1] > 1.5 * pictures.shape[0]  # four images of both frames


def test_the_same_seed_gives_the_same_table(case):
    texts = []
    for seed in (1, 1, 2):
        assert run("study ablation", None, *arguments(case), "--frames", 1, "--seed", seed).exit_code == 0
        texts.append(Path("table.csv").read_text())
    assert texts[0] == texts[1] != texts[2]


def test_the_start_pose_matters(case):
    assert run("study ablation", None, *arguments(case), "--frames", 2).exit_code == 0
    placed = read_table("table.csv")
    result = run("study ablation", None, *arguments({**case, "initial": None}), "--frames", 2)
    assert result.exit_code == 0, result.output
    assert [row["mse"] for row in read_table("table.csv")] != [row["mse"] for row in placed]


def bad_inputs():
    """name: (options that replace the good ones, what the sentence says)."""
    return {
        "no volume": ({"volume": None}, "--volume is missing"),
        "no sweep": ({"sweep": None}, "--sweep is missing"),
        "missing sweep": ({"sweep": "none.igs.mha"}, "There is no file"),
        "sweep without tracking": ({"sweep": "mri.nii.gz"}, "no tracking"),
        "not csv": ({"output": "table.txt"}, ".csv"),
        "figure": ({"figure": "figure.jpg"}, ".png"),
        "pictures": ({"pictures": "pictures.jpg"}, ".png"),
        "initial": ({"initial": "mri.nii.gz"}, "cannot be read as a transform"),
        "over the input": ({"initial": "table.csv"}, "would be overwritten"),
        "over the tissues": ({"tissues": "table.csv"}, "would be overwritten"),
        "both": ({"cases": "."}, "does not go with --cases"),
        "modality": ({"modality": "T2"}, "--cases"),
        "no folder": ({"volume": None, "sweep": None, "initial": None, "cases": "nowhere"}, "no folder"),
        "empty folder": ({"volume": None, "sweep": None, "initial": None, "cases": "."}, "no case"),
        "probe": ({"probe": "no-such-probe"}, "no probe preset"),
        "weights": ({"weights": "none.pt"}, "do not exist"),
        "options of a CT": ({"scanner": "ge-bone"}, "for --kind ct"),
        "far away": ({"initial": "far.tfm"}, "lies in the volume"),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_gets_one_sentence_and_writes_nothing(case, name):
    changes, message = bad_inputs()[name]
    write_transform("far.tfm", pose_from((0, 0, 0), (900.0, 0, 0)).numpy())
    before = sorted(Path().iterdir())
    result = run("study ablation", None, *arguments({**case, **changes}))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert sorted(Path().iterdir()) == before
