"""Exported slices and sweeps, read back by other programs' readers."""

import json
from dataclasses import replace

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
import torch
from diffus import __version__
from diffus.errors import InputError
from diffus.export import SimulatedFrames, export, probe_poses, write_maps
from diffus.export.annotation import make_canvas
from diffus.export.tracked import poses_path
from diffus.io.provenance import header_keys, provenance
from diffus.io.volumes import write_slice
from diffus.medium import CHANNELS, AcousticMedium
from diffus.probe import ConvexProbe, LinearProbe, PhasedProbe
from diffus.render.settings import RenderSettings
from diffus.sweep.sweep import TrackedSweep, read_sweep
from PIL import Image

COMMON = {"frequency_mhz": 5.0, "depth_mm": 60.0, "focus_mm": 30.0, "rays": 48, "samples": 100}
PROBES = {
    "convex": ConvexProbe(radius_mm=20.0, fov_deg=60.0, mm_per_pixel=0.4, **COMMON),
    "linear": LinearProbe(width_mm=38.0, mm_per_pixel=0.4, **COMMON),
    "phased": PhasedProbe(fov_deg=80.0, mm_per_pixel=0.4, **COMMON),
    "half circle": ConvexProbe(radius_mm=10.0, fov_deg=180.0, mm_per_pixel=0.5, **COMMON),
    "narrow": LinearProbe(width_mm=10.0, mm_per_pixel=0.5, **COMMON),
}
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def made(name="convex", count=5, times=None):
    """Frames of noise in the fan, each at another pose."""
    probe = PROBES[name]
    geometry = probe.slice_geometry()
    rng = np.random.default_rng(3)
    fan = SimulatedFrames(
        np.zeros((1, geometry.rows, geometry.columns), np.uint8), np.eye(4)[None], np.zeros(1), probe, RenderSettings()
    ).inside
    pixels = (rng.integers(1, 256, (count, geometry.rows, geometry.columns)) * fan).astype(np.uint8)
    poses = np.tile(np.eye(4), (count, 1, 1))
    for n, pose in enumerate(poses):
        angle = 0.2 * n + 0.3
        pose[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        pose[:3, 3] = [10.0 + n, -20.0, 3.0 * n]
    times = 0.1 * np.arange(count) if times is None else np.asarray(times)
    return SimulatedFrames(pixels, poses, times, probe, RenderSettings())


def written(frames, path):
    steps = list(export(frames, path))
    assert steps[-1] == len(frames)
    return path


def pictures_of(frames, path):
    """What a picture or film file shows, (K, rows, columns)."""
    if path.suffix == ".png" and len(frames) > 1:
        return np.stack([np.asarray(Image.open(file)) for file in sorted(path.with_suffix("").iterdir())])
    if path.suffix == ".mp4":
        ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
        reader = ffmpeg.read_frames(str(path), pix_fmt="gray", bits_per_pixel=8)
        columns, rows = next(reader)["size"]
        return np.stack([np.frombuffer(data, np.uint8).reshape(rows, columns) for data in reader])
    with Image.open(path) as image:
        found = []
        for number in range(getattr(image, "n_frames", 1)):
            image.seek(number)
            found.append(np.asarray(image.convert("L")))
    return np.stack(found)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("file", ["one.png", "series.png", "film.gif", "film.mp4"])
def test_pictures_carry_the_word_outside_of_the_fan_and_nothing_else_changes(tmp_path, name, file):
    frames = made(name, 1 if file.startswith("one") else 3)
    if file.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
    pictures = pictures_of(frames, written(frames, tmp_path / file)).astype(int)
    canvas = make_canvas(frames.inside, even=file.endswith("mp4"))
    assert pictures.shape == (len(frames), *canvas.stamp.shape)
    tolerance = 90 if file.endswith("mp4") else 0  # noise, compressed
    for picture, pixels in zip(pictures, frames.pixels):
        place = picture[canvas.top : canvas.top + pixels.shape[0], : pixels.shape[1]]
        difference = np.abs(place - pixels.astype(int))[frames.inside]
        assert difference.max() <= 2 * tolerance
        assert difference.mean() <= tolerance / 9
        outside = np.where(canvas.fan, 0, picture)
        assert (outside > 128).sum() > 60  # letters
        assert np.corrcoef(outside.ravel(), canvas.stamp.ravel())[0, 1] > 0.8
    strip = name in ("linear", "narrow")
    assert bool(canvas.top) == strip


def test_the_word_is_legible_and_never_in_the_fan():
    from PIL import ImageFont

    for name in PROBES:
        canvas = make_canvas(made(name, 1).inside)
        assert not (canvas.stamp.astype(bool) & canvas.fan).any()
        rows, columns = (np.flatnonzero(canvas.stamp.any(axis)) for axis in (1, 0))
        left, top, right, bottom = ImageFont.load_default(10).getbbox("SIMULATED")
        assert np.ptp(rows) + 1 >= bottom - top - 2
        assert np.ptp(columns) + 1 >= right - left - 2


def test_films_run_in_the_frames_own_time(tmp_path):
    ffmpeg = pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
    frames = made(count=4, times=[0.0, 0.1, 0.3, 0.4])
    with Image.open(written(frames, tmp_path / "film.gif")) as image:
        durations = []
        for number in range(image.n_frames):
            image.seek(number)
            durations.append(image.info["duration"])
    assert durations == [100, 200, 100, 100]
    reader = ffmpeg.read_frames(str(written(frames, tmp_path / "film.mp4")))
    assert next(reader)["fps"] == pytest.approx(8.0)
    reader.close()
    assert made(count=3, times=[1.0, 1.0, 1.0]).frames_per_second == pytest.approx(12.0)


def test_a_slice_lies_at_its_place_in_the_world(tmp_path):
    frames = made(count=1)
    image = sitk.ReadImage(str(written(frames, tmp_path / "slice.nrrd")))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), frames.pixels)
    for point in ((0, 0), (17, 31)):
        lps = np.array(image.TransformIndexToPhysicalPoint((*point, 0)))
        np.testing.assert_allclose(lps * (-1, -1, 1), (frames.image_to_reference[0] @ (*point, 0, 1))[:3], atol=1e-6)


def test_two_equal_times_move_one_frame_only(tmp_path):
    """They replaced all times by the frames' numbers, and all pictures by the usual rate."""
    times = [0.0, 0.1, 0.1, 0.3, 0.4]
    frames = made(count=5, times=times)
    assert frames.index_times == ["0.000000", "0.100000", "0.102000", "0.300000", "0.400000"]
    assert frames.intervals_s.sum() == pytest.approx(0.4 + np.median([0.1, 0.002, 0.198, 0.1]))
    keys = header(written(frames, tmp_path / "sweep.seq.nrrd"))[1]
    assert keys["axis 0 index values"] == " ".join(frames.index_times)
    assert made(count=3, times=[1.0, 1.0, 1.0]).index_times == ["0", "1", "2"]
    back = read_sweep(written(frames, tmp_path / "sweep.igs.mha"))
    assert back.timestamps[[0, 1, 3, 4]].tolist() == [0.0, 0.1, 0.3, 0.4]


def header(path):
    image = sitk.ReadImage(str(path))
    return image, {key: image.GetMetaData(key) for key in image.GetMetaDataKeys()}


def matrix(text):
    return np.array([float(value) for value in text.split()]).reshape(4, 4)


@pytest.mark.parametrize("count", [1, 5])
def test_a_plus_sequence_holds_pixels_and_poses(tmp_path, count):
    frames = made(count=count)
    image, keys = header(written(frames, tmp_path / "sweep.igs.mha"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image), frames.pixels)
    assert keys["UltrasoundImageOrientation"] == "MFA"
    for n in range(count):
        found = matrix(keys[f"Seq_Frame{n:04d}_ImageToReferenceTransform"])
        np.testing.assert_allclose(found @ (9, 4, 0, 1), frames.image_to_reference[n] @ (9, 4, 0, 1), atol=1e-8)
        assert keys[f"Seq_Frame{n:04d}_ImageToReferenceTransformStatus"].strip() == "OK"
        assert keys[f"Seq_Frame{n:04d}_ImageStatus"].strip() == "OK"
        assert float(keys[f"Seq_Frame{n:04d}_Timestamp"]) == pytest.approx(frames.timestamps[n])
    assert f"Seq_Frame{count:04d}_Timestamp" not in keys


@pytest.mark.parametrize("count", [1, 5])
def test_a_slicer_sequence_holds_pixels_places_and_poses(tmp_path, count):
    frames = made(count=count)
    path = written(frames, tmp_path / "sweep.seq.nrrd")
    image, keys = header(path)
    pixels = sitk.GetArrayFromImage(image).reshape(*frames.pixels.shape[1:], count)
    np.testing.assert_array_equal(np.moveaxis(pixels, -1, 0), frames.pixels)
    lps = np.array(image.TransformIndexToPhysicalPoint((9, 4, 0)))
    in_probe = np.append(lps * (-1, -1, 1), 1)
    np.testing.assert_allclose(in_probe, frames.pixel_to_probe @ (9, 4, 0, 1), atol=1e-6)
    for n in range(count):
        pose = matrix(keys[f"Seq_Frame{n:04d}_ProbeToReferenceTransform"])
        np.testing.assert_allclose(pose @ in_probe, frames.image_to_reference[n] @ (9, 4, 0, 1), atol=1e-6)
        assert keys[f"Seq_Frame{n:04d}_ProbeToReferenceTransformStatus"] == "OK"
    if count > 1:  # one frame of a NRRD list cannot be told from a volume
        back = read_sweep(path)
        np.testing.assert_allclose(back.image_to_reference.numpy(), frames.image_to_reference, atol=1e-6)
        np.testing.assert_allclose(back.frames.numpy() * 255, frames.pixels, atol=1e-3)


def test_slicer_reads_the_sequence_and_its_poses(tmp_path):
    slicer = pytest.importorskip("slicer", reason="slicer-core is not installed: its reader is not tested")
    import vtk

    frames = made(count=5)
    path = written(frames, tmp_path / "sweep.seq.nrrd")
    scene = slicer.vtkMRMLScene()
    sequences = []
    for storage_class, file in (
        (slicer.vtkMRMLVolumeSequenceStorageNode, path),
        (slicer.vtkMRMLLinearTransformSequenceStorageNode, poses_path(path)),
    ):
        storage, node = scene.AddNode(storage_class()), scene.AddNewNodeByClass("vtkMRMLSequenceNode")
        storage.SetFileName(str(file))
        assert storage.ReadData(node)
        assert node.GetNumberOfDataNodes() == 5
        sequences.append(node)
    volumes, poses = sequences
    for n in range(5):
        assert float(volumes.GetNthIndexValue(n)) == pytest.approx(frames.timestamps[n])
        assert float(poses.GetNthIndexValue(n)) == pytest.approx(frames.timestamps[n])
        to_parent = vtk.vtkMatrix4x4()
        poses.GetNthDataNode(n).GetMatrixTransformToParent(to_parent)
        found = [to_parent.GetElement(row, column) for row in range(4) for column in range(4)]
        np.testing.assert_allclose(np.reshape(found, (4, 4)), frames.probe_to_reference[n], atol=1e-6)
    to_ras = vtk.vtkMatrix4x4()
    volumes.GetNthDataNode(2).GetIJKToRASMatrix(to_ras)
    np.testing.assert_allclose(to_ras.MultiplyPoint((9, 4, 0, 1)), frames.pixel_to_probe @ (9, 4, 0, 1), atol=1e-6)


# --- where the probe was in a recorded sweep


def test_poses_of_a_sweep_of_the_probes_own_are_exact():
    frames = made(count=4)
    matrices = frames.image_to_reference.copy()
    matrices[:, :3, 2] *= 7.0  # what stands for the direction that an image does not have
    sweep = TrackedSweep.from_arrays(frames.pixels, matrices, mask=frames.inside)
    probe, poses = probe_poses(sweep, frames.probe)
    assert probe is frames.probe
    np.testing.assert_allclose(poses, frames.probe_to_reference, atol=1e-9)


def test_poses_of_a_real_sweep_come_from_its_fan():
    frames = made(count=6)
    padded = np.pad(frames.pixels, ((0, 0), (25, 20), (40, 15)))
    shift = np.eye(4)
    shift[:2, 3] = -40, -25
    sweep = TrackedSweep.from_arrays(padded, frames.image_to_reference @ shift)
    for given in (None, PROBES["phased"]):
        probe, poses = probe_poses(sweep, given)
        assert probe.type == ("convex" if given is None else "phased")
        np.testing.assert_allclose(poses[:, :3, :3], frames.probe_to_reference[:, :3, :3], atol=0.02)
        np.testing.assert_allclose(poses[:, :3, 3], frames.probe_to_reference[:, :3, 3], atol=0.8)
        np.testing.assert_allclose(np.linalg.det(poses), 1.0)


# --- acoustic maps


def test_maps_are_volumes_on_the_mediums_grid(tmp_path):
    maps = torch.rand(4, 5, 6, 7) + 0.5
    geometry = np.diag([2.0, 1.5, 3.0, 1.0])
    geometry[:3, 3] = [4.0, -5.0, 6.0]
    medium = AcousticMedium(maps, geometry)
    assert list(write_maps(tmp_path / "maps", medium)) == [1, 2, 3, 4]
    assert sorted(file.name for file in (tmp_path / "maps").iterdir()) == sorted(f"{c}.nrrd" for c in CHANNELS)
    for values, channel in zip(maps, CHANNELS):
        image = sitk.ReadImage(str(tmp_path / "maps" / f"{channel}.nrrd"))
        np.testing.assert_allclose(sitk.GetArrayFromImage(image), values, atol=1e-6)
        lps = np.array([*image.TransformIndexToPhysicalPoint((1, 2, 3)), 1.0])
        np.testing.assert_allclose(LPS @ lps, geometry @ (1, 2, 3, 1))


# --- nothing half written, nothing written over


def left(folder):
    return sorted(file.name for file in folder.rglob("*"))


ENDINGS = ["sweep.seq.nrrd", "sweep.igs.mha", "sweep.png", "sweep.gif", "sweep.mp4", "sweep.dcm"]


@pytest.mark.parametrize("name", ENDINGS)
def test_a_cancelled_export_leaves_nothing(tmp_path, name):
    frames = made(count=4)
    if name.endswith("mp4"):
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
    for steps in (1, 2, 4):
        work = export(frames, tmp_path / name)
        for done in work:
            if done >= steps:
                break
        work.close()
        assert left(tmp_path) == []


@pytest.mark.parametrize("name", ENDINGS)
def test_a_failed_export_leaves_nothing_and_keeps_the_file_of_before(tmp_path, name, monkeypatch):
    target = tmp_path / name
    if name != "sweep.png":
        target.write_text("of yesterday")
    before = left(tmp_path)

    def refuse(*arguments, **options):
        raise OSError("no space left on the device")

    monkeypatch.setattr("diffus.io.atomic.os.replace", refuse)
    with pytest.raises((OSError, InputError)):
        list(export(made(count=4), target))
    assert left(tmp_path) == before
    if before:
        assert target.read_text() == "of yesterday"


def test_a_series_never_goes_into_a_folder_with_files(tmp_path):
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="not empty"):
        list(export(made(count=3), tmp_path / "sweep.png"))
    assert left(tmp_path) == ["mine.txt", "sweep"]
    (tmp_path / "sweep" / "mine.txt").unlink()
    list(export(made(count=3), tmp_path / "sweep.png"))
    assert left(tmp_path / "sweep") == [f"sweep_{n:04d}.png" for n in range(3)]


def test_what_a_format_cannot_hold_is_said(tmp_path):
    for name, count, sentence in (
        ("sweep.nrrd", 3, "one slice only"),
        ("slice.gif", 1, "is a film"),
        ("slice.mp4", 1, "is a film"),
        ("slice.bmp", 1, "ending"),
        ("none/slice.png", 1, "does not exist"),
    ):
        with pytest.raises(InputError, match=sentence):
            next(export(made(count=count), tmp_path / name))
    assert left(tmp_path) == []


def test_without_ffmpeg_the_sentence_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "imageio_ffmpeg", None)
    with pytest.raises(InputError, match=r"write a \.gif instead, or install it"):
        list(export(made(), tmp_path / "film.mp4"))
    assert left(tmp_path) == []


@pytest.mark.bad_input
def test_frames_that_do_not_fit_are_refused():
    frames = made(count=3)
    with pytest.raises(InputError, match="as many"):
        SimulatedFrames(frames.pixels, frames.probe_to_reference[:2], frames.timestamps, frames.probe, frames.settings)
    with pytest.raises(InputError, match="pixels"):
        SimulatedFrames(
            frames.pixels[:, 1:], frames.probe_to_reference, frames.timestamps, frames.probe, frames.settings
        )


def test_the_version_is_the_packages():
    import re
    from pathlib import Path

    project = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert re.search(r'^version = "(.*)"$', project, re.MULTILINE)[1] == __version__


MADE = {"software": "DiffUS", "inputs": {"volume": {"name": "Doe^Jane.nrrd", "sha256": "ab" * 32}}, "long": 3000 * "x"}


@pytest.mark.parametrize("name", ["a.nrrd", "a.seq.nrrd", "a.igs.mha", "a.png", "a.gif", "a.mp4", "a.dcm"])
def test_every_format_says_where_it_comes_from_and_that_it_is_simulated(tmp_path, name):
    frames = replace(made(count=1 if name in ("a.nrrd", "a.png") else 3), provenance=MADE)
    if name == "a.mp4":
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
    path = written(frames, tmp_path / name)
    if name.endswith((".nrrd", ".mha")):
        image = sitk.ReadImage(str(path))
        said = image.GetMetaData("DiffUS_Image"), image.GetMetaData("DiffUS_Provenance")
    elif name == "a.png":
        picture = Image.open(path)
        said = picture.text["DiffUS_Image"], picture.text["DiffUS_Provenance"]
    elif name == "a.gif":
        said = Image.open(path).info["comment"].decode().split(" {", 1)
        said = said[0], "{" + said[1]
    elif name == "a.dcm":
        text = pydicom.dcmread(path).ImageComments
        assert "Doe" not in text  # names of files may be the patient's
        said = text.split(". {", 1)[0], "{" + text.split(". {", 1)[1]
    else:
        assert json.dumps(MADE, separators=(",", ":")).encode() in path.read_bytes()
        return
    assert said[0].startswith("SIMULATED")
    found = json.loads(said[1])
    assert found["long"] == MADE["long"]
    assert found["inputs"]["volume"]["sha256"] == "ab" * 32


def test_nifti_says_that_it_is_simulated(tmp_path):
    write_slice(tmp_path / "a.nii.gz", np.arange(30.0).reshape(5, 6), np.eye(4), header_keys(MADE))
    assert sitk.ReadImage(str(tmp_path / "a.nii.gz")).GetMetaData("descrip").startswith("SIMULATED")


def test_the_provenance_of_files_is_their_checksum_and_no_folder(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"abc")
    found = provenance(
        {"volume": tmp_path / "a.bin", "probe": "linear", "mask": None}, seed=np.int64(3), x=float("nan")
    )
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert found["inputs"] == {"volume": {"name": "a.bin", "sha256": digest}}
    assert (found["seed"], found["x"]) == (3, None)
    assert __version__ in found["software"]
