"""The commands `export` and `maps`, end to end on files."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from diffus.io.transforms import write_transform
from diffus.probe import read_probe_json
from diffus.render.scan_conversion import scan_grid
from diffus.sweep.sweep import TrackedSweep, read_sweep, write_sweep
from PIL import Image
from support.commands import run
from support.plate import PLATE_MM, POSE, SPACING, write_plate_ct

PROBE = {"type": "convex", "radius_mm": 15, "fov_deg": 60, "frequency_mhz": 5, "depth_mm": 45, "focus_mm": 30}
PROBE |= {"rays": 48, "samples": 180, "mm_per_pixel": 0.4}


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A folder with ct.nrrd (a plate of bone below tissue), pose.tfm, probe.json and sweep.igs.mha of that probe."""
    monkeypatch.chdir(tmp_path)
    write_plate_ct("ct.nrrd")
    write_transform("pose.tfm", POSE)
    Path("probe.json").write_text(json.dumps(PROBE))
    return {"volume": "ct.nrrd", "kind": "ct", "probe": "probe.json"}


def poses_of(count=4):
    """The pose, tilted about the lateral axis step by step."""
    poses = np.tile(POSE, (count, 1, 1))
    for n, angle in enumerate(np.linspace(0, 0.2, count)):
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        poses[n] = POSE @ tilt
    return poses


def good(command, options, *arguments):
    result = run(command, options, *arguments)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def sweep(case):
    """A recorded sweep: what the probe itself saw, written as PLUS writes it."""
    probe = read_probe_json("probe.json")
    geometry = probe.slice_geometry()
    noise = np.random.default_rng(1).integers(20, 255, (4, geometry.rows, geometry.columns)).astype(np.uint8)
    noise *= scan_grid(probe)[1].numpy()
    poses = poses_of() @ geometry.pixel_to_probe.numpy()
    write_sweep(TrackedSweep.from_arrays(noise, poses, timestamps=[0.0, 0.1, 0.2, 0.3]), "sweep.igs.mha")
    return {**case, "sweep": "sweep.igs.mha"}


def test_a_point_of_every_exported_frame_lies_at_its_place_in_the_world(sweep):
    good("export", {**sweep, "output": "out.igs.mha"}, "--no-speckle", "--noise-db", "none", "--gain-db", "-40")
    back = read_sweep("out.igs.mha")
    assert len(back) == 4
    for frame, to_world in zip(back.frames.numpy(), back.image_to_reference.numpy()):
        column = frame.shape[1] // 2
        row = int(frame[30:, column].argmax()) + 30  # the first rows are the skin
        assert (to_world @ (column, row, 0, 1))[2] == pytest.approx(POSE[2, 3] - PLATE_MM, abs=SPACING)


def test_frames_of_a_sweep_have_noise_of_their_own_and_persistence_averages_them(sweep):
    recorded = read_sweep("sweep.igs.mha")
    still = np.tile(recorded.image_to_reference[:1].numpy(), (4, 1, 1))
    write_sweep(TrackedSweep.from_arrays(recorded.frames.numpy(), still), "still.igs.mha")
    spread = []
    for weight in ("0", "0.9"):
        options = {**sweep, "sweep": "still.igs.mha", "output": f"{weight}.igs.mha"}
        good("export", options, "--noise-db", "0", "--tgc-margin-db", "none", "--persistence", weight)
        frames = read_sweep(f"{weight}.igs.mha").frames.numpy()
        spread.append(np.abs(np.diff(frames, axis=0)).mean())
    assert spread[0] > 0.02
    assert spread[1] < 0.3 * spread[0]


def test_every_format_of_a_sweep_holds_the_same_frames(sweep):
    pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
    for name in ("a.igs.mha", "a.seq.nrrd", "a.gif", "a.png", "a.dcm", "a.mp4"):
        said = good("export", {**sweep, "output": name})
        assert "4 slices" in said
    assert "a.ProbeToReference.seq.mha" in good("export", {**sweep, "output": "a.seq.nrrd"})
    frames = (read_sweep("a.igs.mha").frames.numpy() * 255).round().astype(np.uint8)
    np.testing.assert_array_equal((read_sweep("a.seq.nrrd").frames.numpy() * 255).round(), frames)
    lit = frames > 0
    for n in range(4):
        png = np.asarray(Image.open(f"a/a_{n:04d}.png"))[-frames.shape[1] :]  # the word stands above
        np.testing.assert_array_equal(png[lit[n]], frames[n][lit[n]])
    from pydicom import dcmread

    np.testing.assert_array_equal(dcmread("a.dcm").pixel_array[:, -frames.shape[1] :][lit], frames[lit])
    assert Path("a.mp4").stat().st_size > 500
    with Image.open("a.gif") as film:
        assert film.n_frames == 4


def test_a_slice_is_what_render_renders(case):
    single = {**case, "pose": "pose.tfm"}
    good("render", {**single, "output": "r.nrrd"})
    for name in ("e.nrrd", "e.png", "e.dcm"):
        assert "1 slice" in good("export", {**single, "output": name})
    first, second = (sitk.ReadImage(name) for name in ("r.nrrd", "e.nrrd"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))
    np.testing.assert_allclose(first.GetOrigin(), second.GetOrigin(), atol=1e-9)
    np.testing.assert_allclose(first.GetDirection(), second.GetDirection(), atol=1e-9)


def test_the_settings_of_a_file_are_those_of_the_option(case):
    Path("fitted.json").write_text(json.dumps({"probe": PROBE, "settings": {"gain_db": -12.0, "noise_db": None}}))
    single = {**case, "pose": "pose.tfm"}
    good("export", {**single, "settings": "fitted.json", "output": "a.nrrd"})
    good("export", {**single, "gain-db": -12, "noise-db": "none", "output": "b.nrrd"})
    good("export", {**single, "settings": "fitted.json", "gain-db": 0, "output": "c.nrrd"})
    a, b, c = (sitk.GetArrayFromImage(sitk.ReadImage(f"{name}.nrrd")) for name in "abc")
    np.testing.assert_array_equal(a, b)
    assert c.mean() > a.mean() + 10  # the option wins


def test_a_volume_that_lies_elsewhere_is_brought_to_the_sweep(sweep):
    good("export", {**sweep, "output": "there.igs.mha"})
    moved = np.eye(4)
    moved[:3, 3] = 40.0, -30.0, 20.0
    recorded = read_sweep("sweep.igs.mha")
    frames = (recorded.frames.numpy() * 255).round().astype(np.uint8)
    write_sweep(TrackedSweep.from_arrays(frames, moved @ recorded.image_to_reference.numpy()), "moved.igs.mha")
    write_transform("moved.tfm", moved)
    good(
        "export", {**sweep, "sweep": "moved.igs.mha", "volume-to-reference": "moved.tfm", "output": "moved_out.igs.mha"}
    )
    np.testing.assert_allclose(read_sweep("there.igs.mha").frames, read_sweep("moved_out.igs.mha").frames, atol=0.02)


def test_the_sweeps_own_fan_is_the_probe(sweep):
    options = {name: value for name, value in sweep.items() if name != "probe"}
    good("export", {**options, "output": "own.igs.mha"})
    found, wanted = read_sweep("own.igs.mha"), read_sweep("sweep.igs.mha")
    sizes = [np.array(s.frames.shape[1:]) * float(s.image_to_reference[0, :3, 0].norm()) for s in (found, wanted)]
    np.testing.assert_allclose(*sizes, atol=2.0)


def bad_inputs():
    return {
        "neither": ({"output": "a.png"}, "--pose for one slice or --sweep"),
        "both": ({"output": "a.png", "pose": "pose.tfm", "sweep": "sweep.igs.mha"}, "not both"),
        "no probe": ({"output": "a.png", "pose": "pose.tfm", "probe": None}, "give --probe"),
        "film of one": ({"output": "a.gif", "pose": "pose.tfm"}, "is a film"),
        "sweep as slice": ({"output": "a.nrrd", "sweep": "sweep.igs.mha"}, "one slice only"),
        "ending": ({"output": "a.bmp", "pose": "pose.tfm"}, "ending"),
        "no folder": ({"output": "none/a.png", "pose": "pose.tfm"}, "does not exist"),
        "over an input": ({"output": "sweep.igs.mha", "sweep": "sweep.igs.mha"}, "would be overwritten"),
        "source of a picture": ({"output": "a.png", "pose": "pose.tfm", "dicom-source": "x.dcm"}, "ends in .dcm"),
        "no source": ({"output": "a.dcm", "pose": "pose.tfm", "dicom-source": "x.dcm"}, "cannot be read as DICOM"),
        "settings": ({"output": "a.png", "pose": "pose.tfm", "settings": "probe.json"}, "Unknown render setting"),
        "scaled": ({"output": "a.png", "sweep": "sweep.igs.mha", "volume-to-reference": "scaled.tfm"}, "scales"),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_gets_one_sentence_and_writes_nothing(sweep, name):
    changes, message = bad_inputs()[name]
    write_transform("scaled.tfm", np.diag([2.0, 2.0, 2.0, 1.0]))
    base = {key: value for key, value in sweep.items() if key != "sweep"}
    options = {key: value for key, value in (base | changes).items() if value is not None}
    before = sorted(Path().iterdir())
    result = run("export", options)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1, result.stderr
    assert sorted(Path().iterdir()) == before


def test_the_poses_beside_a_sequence_do_not_overwrite_an_input(sweep):
    good("export", {**sweep, "output": "x.seq.nrrd"})
    kept = Path("x.ProbeToReference.seq.mha")
    kept.write_bytes(Path("sweep.igs.mha").read_bytes())
    result = run("export", {**sweep, "sweep": kept, "output": "x.seq.nrrd"})
    assert result.exit_code == 2
    assert "x.ProbeToReference.seq.mha is read too and would be overwritten" in result.stderr
    assert kept.read_bytes() == Path("sweep.igs.mha").read_bytes()


def test_a_pause_that_gif_cannot_hold_is_refused(sweep):
    recorded = read_sweep("sweep.igs.mha")
    frames = (recorded.frames.numpy() * 255).round().astype(np.uint8)
    times = 700.0 * np.arange(len(recorded))
    write_sweep(TrackedSweep.from_arrays(frames, recorded.image_to_reference.numpy(), timestamps=times), "slow.igs.mha")
    result = run("export", {**sweep, "sweep": "slow.igs.mha", "output": "x.gif"})
    assert result.exit_code == 2
    assert "cannot hold a pause of 700 s" in result.stderr
    assert not Path("x.gif").exists()


def test_a_command_that_is_ended_leaves_nothing(sweep):
    """SIGTERM, as a job scheduler sends it, in the middle of the writing."""
    options = [part for name, value in {**sweep, "output": "x.gif"}.items() for part in (f"--{name}", str(value))]
    program = (
        "import sys, os, signal, diffus.export.movie as movie\n"
        "from PIL import Image\n"
        "save = Image.Image.save\n"
        "def slow(image, path, **options):\n"
        "    save(image, path, **options)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "Image.Image.save = slow\n"
        "from diffus.cli.main import main\n"
        "main(sys.argv[1:])\n"
    )
    before = sorted(Path().iterdir())
    done = subprocess.run([sys.executable, "-c", program, "export", *options], capture_output=True, timeout=300)
    assert done.returncode == 128 + signal.SIGTERM
    assert sorted(Path().iterdir()) == before


def test_patient_without_a_source_is_refused(case):
    result = run("export", {**case, "pose": "pose.tfm", "output": "a.dcm"}, "--include-patient")
    assert result.exit_code == 2
    assert "--dicom-source" in result.stderr


def test_a_name_that_the_disk_refuses_is_one_sentence(case):
    before = sorted(Path().iterdir())
    result = run("maps", {"volume": case["volume"], "kind": case["kind"], "output": 300 * "a"})
    assert result.exit_code == 1
    assert "could not be read or written" in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert sorted(Path().iterdir()) == before


def test_maps_are_written_into_a_new_folder(case):
    options = {name: case[name] for name in ("volume", "kind")}
    said = good("maps", {**options, "output": "maps"})
    assert "impedance_mrayl.nrrd" in said
    impedance = sitk.ReadImage("maps/impedance_mrayl.nrrd")
    assert impedance.GetSpacing() == pytest.approx((SPACING,) * 3)
    values = sitk.GetArrayFromImage(impedance)
    assert values[5, 20, 20] > 2.5 > 1.8 > values[40, 20, 20] > 1.4  # MRayl: bone, and tissue
    for output, sentence in (("maps", "not empty"), ("none/maps", "does not exist")):
        result = run("maps", {**options, "output": output})
        assert result.exit_code == 2
        assert sentence in result.stderr
