"""Tracked sweeps: what is read from real files and from made ones, what is refused, and what comes back."""

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from diffus.errors import InputError
from diffus.geometry.pose import image_pose, require_rigid, twist_to_matrix
from diffus.io.sweeps import read_image_to_probe
from diffus.io.volumes import read_picture
from diffus.probe.fan_mask import beam_mask
from diffus.sweep.frames import grey_scale, rising_times
from diffus.sweep.from_volume import sweep_from_volume
from diffus.sweep.sweep import TrackedSweep, choose_frames, read_sweep, write_sweep

SCALE = np.diag([0.2, 0.3, 0.25, 1.0])


def rigid(*twist) -> np.ndarray:
    return twist_to_matrix(torch.tensor(twist, dtype=torch.float64)).numpy()


def text(matrix) -> str:
    return " ".join(f"{v:.10g}" for v in np.asarray(matrix).ravel())


def speckle(frames=5, rows=40, columns=48, seed=0) -> np.ndarray:
    pixels = np.random.default_rng(seed).integers(20, 250, (frames, rows, columns)).astype(np.uint8)
    pixels[:, :6] = 0
    pixels[:, :, :4] = 0
    return pixels


def write(path, pixels, per_frame, **keys):
    image = sitk.GetImageFromArray(pixels)
    for n, fields in enumerate(per_frame):
        for key, value in fields.items():
            image.SetMetaData(f"Seq_Frame{n:04d}_{key}", value)
    for key, value in keys.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(path))
    return path


def tracked(n, status="OK", **more) -> dict:
    probe, reference = rigid(n, 2, 3, 0.1 * n, 0, 0.2), rigid(5, -1, 0, 0, 0.3, 0.1)
    return {
        "ProbeToTrackerTransform": text(probe),
        "ProbeToTrackerTransformStatus": status,
        "ReferenceToTrackerTransform": text(reference),
        "ReferenceToTrackerTransformStatus": "OK",
        "ImageStatus": "OK",
        "Timestamp": f"{0.1 * n}",
        **more,
    }


@pytest.mark.parametrize("suffix", [".igs.mha", ".nrrd"])
def test_chain_through_the_tracker_and_skipped_frames(tmp_path, suffix):
    pixels = speckle()
    frames = [tracked(n, "INVALID" if n == 1 else "OK") for n in range(5)]
    frames[3]["ImageStatus"] = "INVALID"
    # What an invalid frame or tool holds is nobody's business.
    frames[3]["ProbeToTrackerTransform"] = text(np.full((4, 4), np.nan))
    frames[2] |= {
        "StylusToTrackerTransform": text(np.full((4, 4), np.nan)),
        "StylusToTrackerTransformStatus": "INVALID",
    }
    path = write(tmp_path / f"sweep{suffix}", pixels, frames, UltrasoundImageOrientation="MF")
    sweep = read_sweep(path, SCALE)
    assert len(sweep) == 3
    assert (sweep.report.frames_in_file, sweep.report.frames_skipped) == (5, 2)
    expected = np.linalg.inv(rigid(5, -1, 0, 0, 0.3, 0.1)) @ rigid(2, 2, 3, 0.2, 0, 0.2) @ SCALE
    assert np.allclose(sweep.image_to_reference[1], expected, atol=1e-8)
    assert np.array_equal((sweep.frames[1] * 255).round().numpy(), pixels[2])
    assert sweep.timestamps.tolist() == pytest.approx([0.0, 0.2, 0.4])


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        ("MFA", lambda p: p),
        ("UF", lambda p: p[:, :, ::-1]),
        ("MN", lambda p: p[:, ::-1]),
        ("UNA", lambda p: p[:, ::-1, ::-1]),
        ("FM", lambda p: p.transpose(0, 2, 1)),
    ],
)
def test_pixels_are_flipped_to_mf_and_matrices_are_left_alone(tmp_path, orientation, undo):
    pixels = speckle()
    fields = [{"ImageToReferenceTransform": text(rigid(0, 0, n, 0, 0, 0) @ SCALE)} for n in range(5)]
    sweep = read_sweep(write(tmp_path / "s.mha", undo(pixels).copy(), fields, UltrasoundImageOrientation=orientation))
    assert np.array_equal((sweep.frames * 255).round().numpy(), pixels)
    assert np.allclose(sweep.image_to_reference[2], rigid(0, 0, 2, 0, 0, 0) @ SCALE)
    assert sweep.report.orientation == orientation
    assert sweep.report.notes == ()


@pytest.mark.parametrize("stated", [None, "XY"])
def test_a_missing_or_unknown_orientation_is_said(tmp_path, stated):
    fields = [{"ImageToReferenceTransform": text(SCALE)}] * 5
    keys = {} if stated is None else {"UltrasoundImageOrientation": stated}
    report = read_sweep(write(tmp_path / "s.mha", speckle(), fields, **keys)).report
    assert report.orientation == "unknown"
    assert "orientation" in report.notes[0]
    assert "same pose" in report.notes[1]


def test_writing_and_reading_again(tmp_path):
    poses = np.stack([rigid(n, 0, 0, 0, 0.05 * n, 0) @ SCALE for n in range(5)])
    sweep = TrackedSweep.from_arrays(speckle(), poses, timestamps=[0, 1, 2, 3, 4.5])
    for name in ("s.igs.mha", "s.nrrd"):
        write_sweep(sweep, tmp_path / name)
        again = read_sweep(tmp_path / name)
        assert torch.equal(again.frames, sweep.frames)
        assert torch.allclose(again.image_to_reference, sweep.image_to_reference, atol=1e-9)
        assert torch.equal(again.timestamps, sweep.timestamps)
    with pytest.raises(InputError, match="written as"):
        write_sweep(sweep, tmp_path / "s.png")


def broken(**change):
    return [tracked(n, **change) for n in range(5)]


SHEARED = SCALE.copy()
SHEARED[0, 1] = 0.1
MIRRORED = SCALE @ np.diag([1, 1, -1, 1])


@pytest.mark.parametrize(
    ("fields", "calibration", "words"),
    [
        ([{}] * 5, SCALE, "no tracking"),
        (broken(ProbeToTrackerTransformStatus="INVALID"), SCALE, "no frame with valid tracking"),
        (broken(ProbeToTrackerTransform=text(np.diag([1.1, 1, 1, 1]))), SCALE, "ProbeToTracker scales"),
        (broken(ProbeToTrackerTransform=text(np.full((4, 4), np.nan))), SCALE, "NaN"),
        (broken(ProbeToTrackerTransform="1 2 3"), SCALE, "16"),
        (broken(Timestamp="abc"), SCALE, "timestamp"),
        (broken(), SCALE + np.diag([0, 0, 0, 1.0]), "last row"),
        ([{"ImageToReferenceTransform": text(SCALE)}] * 5, SCALE, "leave the ImageToProbe calibration out"),
        (broken(), None, "ImageToProbe"),
        (broken(), SHEARED, "shears"),
        (broken(), MIRRORED, "left-handed"),
        ([{"StylusToTrackerTransform": text(np.eye(4))}] * 5, SCALE, "tracks no probe"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_sentence(tmp_path, fields, calibration, words):
    with pytest.raises(InputError, match=words) as error:
        read_sweep(write(tmp_path / "s.mha", speckle(), fields), calibration)
    assert "\n" not in str(error.value)


def test_a_reference_that_never_moves_may_stand_once_in_the_header(tmp_path):
    reference = rigid(5, -1, 0, 0, 0.3, 0.1)
    fields = [{k: v for k, v in tracked(n).items() if "ReferenceToTracker" not in k} for n in range(5)]
    sweep = read_sweep(write(tmp_path / "s.mha", speckle(), fields, ReferenceToTrackerTransform=text(reference)), SCALE)
    expected = np.linalg.inv(reference) @ rigid(2, 2, 3, 0.2, 0, 0.2) @ SCALE
    assert np.allclose(sweep.image_to_reference[2], expected, atol=1e-8)
    assert not any("relative to the tracker" in note for note in sweep.report.notes)


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"ReferenceToTrackerTransform": text(np.diag([1.1, 1, 1, 1]))}, "ReferenceToTracker scales"),
        ({"ReferenceToTrackerTransform": text(np.diag([1.0, 1, 0, 1]))}, "singular"),
        ({"ReferenceToTrackerTransform": "1 2 3"}, "16"),
        ({"ImageToProbeTransform": text(SHEARED)}, "shears"),
        ({"ImageToProbeTransform": text(MIRRORED)}, "left-handed"),
        ({"ImageToProbeTransform": text(np.full((4, 4), np.inf))}, "NaN or infinite"),
    ],
)
def test_matrices_of_the_header_are_checked_too(tmp_path, keys, words):
    fields = [{k: v for k, v in tracked(n).items() if "ReferenceToTracker" not in k} for n in range(5)]
    keys = {"ImageToProbeTransform": text(SCALE), **keys}
    with pytest.raises(InputError, match=words):
        read_sweep(write(tmp_path / "s.mha", speckle(), fields, **keys))


def test_header_matrices_that_nobody_needs_or_that_do_not_hold_are_left_alone(tmp_path):
    fields = [{"ImageToReferenceTransform": text(SCALE)}] * 5
    keys = {"StylusTipToStylusTransform": text(np.full((4, 4), np.nan)), "ReferenceToTrackerTransform": "none"}
    assert len(read_sweep(write(tmp_path / "s.mha", speckle(), fields, **keys))) == 5
    # A frame without its own pose must not take the header's.
    fields = [{"ImageToReferenceTransform": text(SCALE)}] * 4 + [{"Timestamp": "4"}]
    keys = {"ImageToReferenceTransform": text(SCALE)}
    assert read_sweep(write(tmp_path / "t.mha", speckle(), fields, **keys)).report.frames_skipped == 1
    lost = {"ReferenceToTrackerTransform": text(np.eye(4)), "ReferenceToTrackerTransformStatus": "INVALID"}
    fields = [{k: v for k, v in tracked(n).items() if "ReferenceToTracker" not in k} for n in range(5)]
    notes = read_sweep(write(tmp_path / "u.mha", speckle(), fields, **lost), SCALE).report.notes
    assert any("relative to the tracker" in note for note in notes)


@pytest.mark.parametrize("top", [4095, 4096, 4097, 65535])
def test_the_grey_scale_has_no_step_at_12_bit(top):
    """A maximum of 4096 in place of 4095 made the whole sweep 16 times darker."""
    pixels = speckle().astype(np.uint16) * 16
    pixels[0, 20, 20] = top
    brightness = grey_scale(pixels)
    assert brightness.max() == 1.0
    np.testing.assert_allclose(brightness, pixels / top, atol=1e-6)


def test_the_grey_scale_is_one_for_the_sweep_and_the_same_in_every_type():
    pixels = speckle()
    expected = pixels.astype(np.float32) / 255
    for dtype in (np.uint8, np.uint16, np.int16, np.int32):
        np.testing.assert_array_equal(grey_scale(pixels.astype(dtype)), expected)
    np.testing.assert_array_equal(grey_scale(expected), expected)
    np.testing.assert_array_equal(grey_scale(expected > 0), expected > 0)
    # Frame by frame, tissue of 1000 would read 1, 0.25 and 1 beside a reflector of 4000.
    frames = np.full((3, 9, 9), 1000, np.uint16)
    frames[1, 4] = 4000
    assert grey_scale(frames)[:, 0, 0].tolist() == [0.25] * 3


def test_a_sweep_in_colour_is_as_bright_as_in_grey(tmp_path):
    """The mean of the colours was stretched to the sweep's own maximum."""
    pixels = speckle()
    image = sitk.GetImageFromArray(np.repeat(pixels[..., None], 3, -1), isVector=True)
    for n in range(5):
        image.SetMetaData(f"Seq_Frame{n:04d}_ImageToReferenceTransform", text(rigid(n, 0, 0, 0, 0, 0) @ SCALE))
    sitk.WriteImage(image, str(tmp_path / "colour.mha"))
    np.testing.assert_array_equal(read_sweep(tmp_path / "colour.mha").frames * 255, pixels)
    frames, spacing = read_picture(tmp_path / "colour.mha")
    np.testing.assert_array_equal(frames, pixels)
    assert spacing is None


def test_strays_do_not_set_the_grey_scale():
    pixels = np.random.default_rng(0).integers(0, 4096, (5, 100, 100)).astype(np.uint16)
    pixels[2, 50, 50] = 65535
    assert grey_scale(pixels)[2, 50, 50] == 1.0
    np.testing.assert_allclose(np.median(grey_scale(pixels)), 0.5, atol=0.01)
    # Neither does a bit of ringing below 0 or above 1.
    clean = np.random.default_rng(0).uniform(0, 0.5, (5, 40, 40))
    for low, high in ((-0.001, 0.5), (0.0, 1.001)):
        ringing = clean.copy()
        ringing[0, 0, :2] = low, high
        np.testing.assert_allclose(grey_scale(ringing)[1:], clean[1:], atol=2e-3)


def test_only_the_times_that_do_not_rise_are_moved():
    """One pair of the same time replaced all times by frame numbers: 10 s became 299 s."""
    times = np.linspace(0.0, 10.0, 300)
    times[100] = times[99]
    moved, note = rising_times(times, 0.002)
    assert moved[-1] == 10.0
    assert np.diff(moved).min() == pytest.approx(0.002)
    assert np.flatnonzero(moved != times).tolist() == [100]
    assert "1 of 300" in note
    assert rising_times(times[:100], 0.002)[1] == ""
    assert rising_times(np.array([3.0, 3.0006, 3.0012, 13.0]), 0.002)[0] == pytest.approx([3.0, 3.002, 3.004, 13.0])
    assert rising_times(np.array([0.0, 0.2, 0.1, 0.4]), 0.002)[0] == pytest.approx([0.0, 0.2, 0.202, 0.4])
    glitch = rising_times(np.array([0.0, 0.1, 0.2, 10.0, 0.3, 0.4, 0.5]), 0.002)
    assert glitch[0] == pytest.approx([0.0, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5])
    assert "1 of 7" in glitch[1]
    set_back = np.array([100.0, 100.1, 0.0, 0.1, 100.2, 0.2])
    for useless in (np.zeros(5), np.array([0.0, np.nan, 1.0]), np.arange(5.0)[::-1], set_back):
        assert rising_times(useless, 0.002)[0] is None
        assert "numbers stand for them" in rising_times(useless, 0.002)[1]
    sweep = TrackedSweep.from_arrays(speckle(), np.tile(SCALE, (5, 1, 1)), timestamps=[0.0, 0.1, 0.1, 0.2, 0.3])
    assert sweep.timestamps[[0, 1, 3, 4]].tolist() == [0.0, 0.1, 0.2, 0.3]
    assert 0.1 < sweep.timestamps[2] < 0.2
    assert "1 of 5" in sweep.report.notes[-1]


def test_the_pose_of_an_image_is_the_nearest_rotation_to_both_of_its_axes():
    """One reader kept the rows' direction and another the columns', 1.8 mm apart at 60 mm for a shear of 3 %."""
    shear = np.eye(4)
    shear[0, 1] = 0.03
    matrix = torch.from_numpy(rigid(3, -5, 7, 0.2, 0.1, -0.3) @ shear @ SCALE)[None]
    pose, size = image_pose(matrix)
    require_rigid(pose, "pose", 1e-12)
    assert torch.linalg.det(pose[0, :3, :3]) > 0
    axes = matrix[0, :3, :2] / size[0]
    torch.testing.assert_close(size[0], matrix[0, :3, :2].norm(dim=0))
    u, _, vh = torch.linalg.svd(axes, full_matrices=False)
    torch.testing.assert_close(pose[0, :3, :2], u @ vh)
    turns = torch.arccos((pose[0, :3, :2] * axes).sum(0))
    assert turns[0] == pytest.approx(turns[1])
    assert turns[0] == pytest.approx(np.arctan(0.03) / 2, rel=1e-3)
    # The origin may be any pixel: there the pose and the matrix agree.
    pixel_to_probe = torch.tensor(np.diag([0.2, 0.3, 0.2, 1.0]))
    pixel_to_probe[:2, 3] = torch.tensor([-20.0, 12.0])
    origin = torch.linalg.inv(pixel_to_probe)[:, 3]
    torch.testing.assert_close(image_pose(matrix, pixel_to_probe)[0][0, :3, 3], (matrix[0] @ origin)[:3])


@pytest.mark.parametrize("scale", [(0.01, 0.01), (1e-4, 1e-4), (0.3, 0.01), (0.01, 0.3), (20.0, 20.0), (0.2, 20.0)])
def test_a_fan_of_impossible_size_is_refused(scale):
    poses = np.tile(np.diag([*scale, min(scale), 1.0]), (5, 1, 1))
    with pytest.raises(InputError, match="5 and 400 mm") as error:
        TrackedSweep.from_arrays(speckle(), poses)
    assert "\n" not in str(error.value)


def test_one_frame_of_another_size_is_noticed():
    poses = np.tile(SCALE, (5, 1, 1))
    poses[3, :3, :3] *= 0.01
    with pytest.raises(InputError, match="5 and 400 mm"):
        TrackedSweep.from_arrays(speckle(), poses)


def test_arrays_of_wrong_shape_or_nan_are_refused():
    poses = np.tile(SCALE, (5, 1, 1))
    with pytest.raises(InputError, match="as many"):
        TrackedSweep.from_arrays(speckle(), poses[:4])
    with pytest.raises(InputError, match="shape"):
        TrackedSweep.from_arrays(speckle()[0], poses)
    with pytest.raises(InputError, match="NaN"):
        TrackedSweep.from_arrays(np.full((5, 30, 30), np.nan), poses)
    with pytest.raises(InputError, match="empty"):
        TrackedSweep.from_arrays(np.zeros((5, 30, 30)), poses)


def test_a_volume_is_cut_into_slices_that_lie_where_it_lies():
    rng = np.random.default_rng(1)
    volume = rng.uniform(0.1, 1, (20, 24, 28))
    ijk_to_ras = rigid(3, -5, 7, 0.2, 0.1, -0.3) @ np.diag([0.5, 0.6, -0.7, 1])
    for axis in range(3):
        sweep = sweep_from_volume(volume, ijk_to_ras, slices=8, axis=axis)
        assert len(sweep) == 8
        n, row, column = 3, 5, 9
        place = sweep.image_to_reference[n].numpy() @ [column, row, 0, 1]
        i, j, k = np.rint((np.linalg.inv(ijk_to_ras) @ place)[:3]).astype(int)
        assert float(sweep.frames[n, row, column]) == pytest.approx(volume[k, j, i], abs=1e-6)


@pytest.mark.parametrize(
    ("volume", "matrix", "words"),
    [
        (np.ones((9, 9, 9)), np.eye(4), "empty"),
        (np.full((9, 9, 9), np.nan), np.eye(4), "NaN or infinite voxels"),
        (np.arange(729.0).reshape(9, 9, 9), np.diag([1.0, 0, 1, 1]), "singular"),
        (np.arange(729.0).reshape(9, 9, 9), np.full((4, 4), np.nan), "NaN or infinite numbers"),
        (np.arange(729.0).reshape(9, 9, 9), np.diag([0.01, 0.01, 0.01, 1.0]), "5 and 400 mm"),
        (np.arange(729.0).reshape(9, 9, 9), 0.01 * np.eye(4), "last row"),
    ],
)
def test_a_volume_that_is_no_ultrasound_is_refused(volume, matrix, words):
    with pytest.raises(InputError, match=words):
        sweep_from_volume(volume, matrix)


def test_fan_mask_is_a_sector_without_the_text_beside_it():
    rows, columns = np.indices((160, 200))
    radius, angle = np.hypot(columns - 100, rows + 20), np.arctan2(columns - 100, rows + 20)
    fan = (radius > 35) & (radius < 170) & (abs(angle) < 0.6)
    pixels = np.random.default_rng(0).integers(30, 255, (6, 160, 200)) * fan
    pixels[:, 5:15, 5:40] = 200
    mask = beam_mask(pixels.astype(np.uint8))
    assert (mask & fan).sum() / (mask | fan).sum() > 0.95
    assert not mask[5:15, 5:40].any()


def test_frames_are_chosen_by_spread_and_content():
    poses = np.stack([np.eye(4)] * 12)
    poses[:, :3, :3] *= 0.3
    poses[:, 2, 3] = [0, 0.1, 0.2, 0.3, 0.4, 0.5, 10, 10.1, 20, 20.1, 30, 30.1]
    sweep = TrackedSweep.from_arrays(speckle(12), poses, mask=np.ones((40, 48)))
    depths = poses[choose_frames(sweep, 4).numpy(), 2, 3].round(-1)
    assert sorted(depths) == [0, 10, 20, 30]
    blank = sweep.frames.clone()
    blank[8] = 0.4
    dull = TrackedSweep.from_arrays(blank.numpy(), poses, mask=np.ones((40, 48)))
    assert 8 not in choose_frames(dull, 4).tolist()
    assert choose_frames(sweep, 40).tolist() == list(range(12))


def test_real_plus_files(shared_data):
    folder = shared_data / "us_tracked"
    spine = read_sweep(
        folder / "plus_SpinePhantomFreehand.igs.mha",
        read_image_to_probe(folder / "plus_SpinePhantomFreehand_config.xml"),
    )
    assert spine.frames.shape == (21, 616, 820)
    assert spine.report.frames_skipped == 0
    with pytest.raises(InputError, match="ImageToProbe"):
        read_sweep(folder / "plus_BoneUltrasound_L14.igs.mha")
    with pytest.raises(InputError, match="no tracking"):
        read_sweep(folder / "liver_us_sweep_every5th_frame.seq.nrrd")


def test_calibration_from_xml_and_from_transform_file_agree(shared_data):
    folder = shared_data / "us_tracked"
    xml = read_image_to_probe(folder / "plus_fCal2_results.xml")
    assert np.allclose(read_image_to_probe(folder / "plus_fCal2_ImageToProbe.tfm"), xml, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("c.xml", "<a", "not an XML file"),
        ("c.xml", '<?xml version="1.0" encoding="nonsense"?><a/>', "not an XML file"),
        ("c.xml", '<a><Transform From="Image" To="Probe"/></a>', "16"),
        ("c.tfm", "words", "cannot be read as a transform"),
        ("c.tfm", sitk.AffineTransform(2), "2-D transform"),
        ("c.tfm", sitk.DisplacementFieldTransform(3), "not a linear transform"),
        ("c.tfm", sitk.AffineTransform([0.0] * 9, [0.0] * 3), "singular"),
    ],
)
def test_a_calibration_that_cannot_be_used_is_refused_in_one_sentence(tmp_path, name, content, words):
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    else:
        sitk.WriteTransform(content, str(tmp_path / name))
    with pytest.raises(InputError, match=words) as error:
        read_image_to_probe(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_calibration_may_be_any_linear_transform(tmp_path):
    move, scale = sitk.TranslationTransform(3, (1.0, 2.0, 3.0)), sitk.ScaleTransform(3, (5.0, 4.0, 2.0))
    sitk.WriteTransform(sitk.CompositeTransform([scale, move]), str(tmp_path / "c.tfm"))
    # From the probe, in LPS: (x, y, z) -> (5 (x + 1), 4 (y + 2), 2 (z + 3)).
    found = read_image_to_probe(tmp_path / "c.tfm") @ (-5.0, -8.0, 6.0, 1.0)
    assert np.allclose(found, (0.0, 0.0, 0.0, 1.0))


def test_wires_of_the_real_phantom_are_where_the_pixels_are_bright(shared_data):
    """The whole chain on real data: N-wire positions in the images, by known PhantomToReference, are bright spots."""
    folder = shared_data / "us_tracked"
    sweep = read_sweep(
        folder / "plus_fCal_Test_Calibration_3NWires_fCal2.0.igs.mha",
        read_image_to_probe(folder / "plus_fCal2_ImageToProbe.tfm"),
    ).subset(range(0, 190, 19))
    phantom_to_reference = read_image_to_probe(folder / "plus_fCal2_PhantomToReference.tfm")
    wires = np.genfromtxt(folder / "plus_fCal2_wires_phantom_mm.csv", delimiter=",", skip_header=1)[:, 1:]
    hits, total = 0, 0
    for frame, pose in zip(sweep.frames.numpy(), sweep.image_to_reference.numpy()):
        to_image = np.linalg.inv(pose) @ phantom_to_reference
        ends = [wires[:, a : a + 3] @ to_image[:3, :3].T + to_image[:3, 3] for a in (0, 3)]
        share = ends[0][:, 2] / (ends[0][:, 2] - ends[1][:, 2])
        crossings = (ends[0] + share[:, None] * (ends[1] - ends[0])).round().astype(int)
        for column, row, _ in crossings[(share > 0) & (share < 1)]:
            total += 1
            hits += frame[row - 15 : row + 16, column - 15 : column + 16].max() > 0.3
    assert total > 40
    assert hits > 0.8 * total


def test_a_frame_that_shows_a_single_line_has_a_fan_of_that_line():
    frame = np.zeros((1, 60, 60), np.uint8)
    frame[0, np.arange(60), np.arange(60)] = 200
    sweep = TrackedSweep.from_arrays(frame, SCALE[None])
    assert 0 < int(sweep.mask.sum()) <= 180
