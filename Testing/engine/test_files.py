"""Files against what SimpleITK and 3D Slicer's own readers make of them."""

import gzip
import os
import struct
import subprocess
import sys

import numpy as np
import pytest
import SimpleITK as sitk
from diffus.errors import InputError
from diffus.io.atomic import replacing
from diffus.io.landmarks import read_landmarks
from diffus.io.sweeps import read_image_to_probe
from diffus.io.tables import read_label_names, read_number_pairs, read_settings
from diffus.io.transforms import read_transform, write_transform
from diffus.io.volumes import read_volume, write_slice
from diffus.medium.tissue import read_tissues
from diffus.probe import read_probe_json

# Rotations about two axes and a shift: no sign and no axis order can be wrong unseen.
POSE = np.array(
    [
        [0.8, -0.36, 0.48, 12.0],
        [0.6, 0.48, -0.64, -7.0],
        [0.0, 0.8, 0.6, 30.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)
POINT = np.array([3.0, -20.0, 11.0, 1.0])


@pytest.fixture
def slicer():
    slicer = pytest.importorskip("slicer")
    slicer.mrmlScene = slicer.vtkMRMLScene()
    return slicer


def write_image(path, array, *, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=None, vector=False):
    image = sitk.GetImageFromArray(array, isVector=vector)
    if image.GetDimension() == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection((POSE[:3, :3] if direction is None else direction).ravel().tolist())
    sitk.WriteImage(image, str(path))
    return image


@pytest.mark.parametrize("suffix", [".nrrd", ".nii.gz", ".mha"])
def test_a_voxel_lies_where_itk_puts_it(tmp_path, suffix):
    array = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    image = write_image(tmp_path / f"v{suffix}", array, spacing=(0.5, 2.0, 3.0), origin=(10.0, -20.0, 30.0))
    volume = read_volume(tmp_path / f"v{suffix}")
    lps = np.array(image.TransformIndexToPhysicalPoint((5, 2, 3)))
    np.testing.assert_allclose((volume.ijk_to_ras @ (5, 2, 3, 1))[:3], lps * (-1, -1, 1), atol=1e-4)
    assert volume.array[3, 2, 5] == array[3, 2, 5]
    assert volume.array.shape == (4, 5, 6)


def test_a_volume_is_where_slicer_puts_it(tmp_path, slicer):
    write_image(tmp_path / "v.nrrd", np.arange(24.0).reshape(2, 3, 4), spacing=(0.5, 2.0, 3.0), origin=(1.0, 2.0, 3.0))
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "v.nrrd"))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert storage.ReadData(node)
    matrix = vtk_matrix(node.GetIJKToRASMatrix)
    np.testing.assert_allclose(read_volume(tmp_path / "v.nrrd").ijk_to_ras, matrix, atol=1e-9)


def vtk_matrix(getter):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    getter(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


BAD_VOLUMES = {
    "2d": (np.zeros((8, 9), np.uint8), {}, "not a 3-D volume"),
    "one slice": (np.arange(72, dtype=np.uint8).reshape(1, 8, 9), {}, "not a 3-D volume"),
    "4d": (np.arange(3**4, dtype=np.uint8).reshape(3, 3, 3, 3), {}, "not a 3-D volume"),
    "colour": (np.zeros((4, 5, 6, 3), np.uint8), {"vector": True}, "3 values per voxel"),
    "constant": (np.full((4, 5, 6), 7, np.int16), {}, "same value (7)"),
    "nan": (np.where(np.eye(6) > 0, np.nan, 1.0)[None].repeat(4, 0), {}, "NaN or infinite"),
    "inf": (np.where(np.eye(6) > 0, np.inf, 1.0)[None].repeat(4, 0), {}, "NaN or infinite"),
}


@pytest.mark.parametrize("case", BAD_VOLUMES)
def test_a_volume_that_cannot_be_used_gets_one_sentence(tmp_path, case):
    array, options, message = BAD_VOLUMES[case]
    path = tmp_path / "bad.nrrd"
    write_image(path, array, **options)
    with pytest.raises(InputError) as caught:
        read_volume(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_folder_and_damaged_volumes(tmp_path):
    with pytest.raises(InputError, match="There is no file"):
        read_volume(tmp_path / "none.nrrd")
    with pytest.raises(InputError, match="is a folder"):
        read_volume(tmp_path)
    (tmp_path / "text.nrrd").write_text("not an image")
    with pytest.raises(InputError, match="cannot be read as an image"):
        read_volume(tmp_path / "text.nrrd")
    with pytest.raises(InputError, match="cannot be read as a transform"):
        read_transform(tmp_path / "text.nrrd")


def test_segment_names_come_with_a_slicer_segmentation(tmp_path):
    image = sitk.GetImageFromArray(np.arange(24, dtype=np.uint8).reshape(2, 3, 4) % 3)
    for index, (value, name) in enumerate({2: "left kidney", 1: "Liver"}.items()):
        image.SetMetaData(f"Segment{index}_LabelValue", str(value))
        image.SetMetaData(f"Segment{index}_Name", name)
    sitk.WriteImage(image, str(tmp_path / "s.seg.nrrd"))
    assert read_volume(tmp_path / "s.seg.nrrd").labels == {2: "left kidney", 1: "Liver"}


def test_the_slice_has_its_pixels_and_its_place(tmp_path):
    image = np.arange(5 * 7, dtype=np.uint8).reshape(5, 7)
    pixel_to_ras = POSE @ np.diag([0.25, 0.25, 3.0, 1.0])
    write_slice(tmp_path / "slice.nrrd", image, pixel_to_ras)
    read = sitk.ReadImage(str(tmp_path / "slice.nrrd"))
    assert read.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    assert sitk.GetArrayFromImage(read).shape == (1, 5, 7)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(read)[0], image)
    np.testing.assert_allclose(read.GetSpacing(), (0.25, 0.25, 3.0))
    ras = (pixel_to_ras @ (6, 4, 0, 1))[:3]
    np.testing.assert_allclose(read.TransformIndexToPhysicalPoint((6, 4, 0)), ras * (-1, -1, 1), atol=1e-12)


def test_the_slice_in_slicer(tmp_path, slicer):
    pixel_to_ras = POSE @ np.diag([0.25, 0.25, 3.0, 1.0])
    write_slice(tmp_path / "slice.nrrd", np.arange(35, dtype=np.uint8).reshape(5, 7), pixel_to_ras)
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(tmp_path / "slice.nrrd"))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    assert storage.ReadData(node)
    np.testing.assert_allclose(vtk_matrix(node.GetIJKToRASMatrix), pixel_to_ras, atol=1e-9)
    assert slicer.util.arrayFromVolume(node)[0, 4, 6] == 34


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_slicer_loads_our_transform_with_the_matrix_to_parent(tmp_path, slicer, suffix):
    path = tmp_path / f"pose{suffix}"
    write_transform(path, POSE)
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(path))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    assert storage.ReadData(node)
    np.testing.assert_allclose(vtk_matrix(node.GetMatrixTransformToParent), POSE, atol=1e-12)
    world = [0.0, 0.0, 0.0]
    node.GetTransformToParent().TransformPoint(POINT[:3], world)
    np.testing.assert_allclose(world, (POSE @ POINT)[:3], atol=1e-9)


@pytest.mark.parametrize("suffix", [".tfm", ".h5"])
def test_we_read_what_slicer_saves(tmp_path, slicer, suffix):
    import vtk

    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(POSE.ravel().tolist())
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetMatrixTransformToParent(matrix)
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(tmp_path / f"saved{suffix}"))
    assert storage.WriteData(node)
    np.testing.assert_allclose(read_transform(tmp_path / f"saved{suffix}"), POSE, atol=1e-12)


def test_the_transform_file_is_an_affine_from_the_parent_in_lps(tmp_path):
    write_transform(tmp_path / "pose.tfm", POSE)
    assert "AffineTransform_double_3_3" in (tmp_path / "pose.tfm").read_text()
    itk = sitk.ReadTransform(str(tmp_path / "pose.tfm"))
    lps = np.array([-1.0, -1.0, 1.0])
    back = itk.TransformPoint(((POSE @ POINT)[:3] * lps).tolist())
    np.testing.assert_allclose(back * lps, POINT[:3], atol=1e-9)


def test_rotation_centres_and_composites_are_read(tmp_path):
    rotation = sitk.Euler3DTransform((5.0, 6.0, 7.0), 0.1, 0.2, 0.3, (1.0, 2.0, 3.0))
    composite = sitk.CompositeTransform([rotation, sitk.TranslationTransform(3, (4.0, 5.0, 6.0))])
    sitk.WriteTransform(composite, str(tmp_path / "c.tfm"))
    matrix = read_transform(tmp_path / "c.tfm")
    world = (matrix @ POINT)[:3]
    np.testing.assert_allclose(
        np.array(composite.TransformPoint((world * (-1, -1, 1)).tolist())) * (-1, -1, 1), POINT[:3], atol=1e-9
    )


def test_transforms_that_cannot_be_a_pose(tmp_path):
    sitk.WriteTransform(sitk.TranslationTransform(2, (1.0, 2.0)), str(tmp_path / "flat.tfm"))
    with pytest.raises(InputError, match="2-D transform"):
        read_transform(tmp_path / "flat.tfm")
    spline = sitk.BSplineTransformInitializer(sitk.Image(8, 8, 8, sitk.sitkUInt8), [2, 2, 2])
    sitk.WriteTransform(spline, str(tmp_path / "spline.h5"))
    with pytest.raises(InputError, match="not a linear transform"):
        read_transform(tmp_path / "spline.h5")
    text = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    (tmp_path / "singular.tfm").write_text(text + "Parameters: 1 0 0 0 1 0 0 0 0 1 2 3\nFixedParameters: 0 0 0\n")
    with pytest.raises(InputError, match="singular"):
        read_transform(tmp_path / "singular.tfm")


AFFINE = "#Transform 0\nTransform: AffineTransform_double_3_3\nParameters: 1 0 0 0 1 0 0 0 1 1 2 3\n"
CUT = {
    "no parameters": (AFFINE.split("Parameters")[0] + "FixedParameters: 0 0 0\n", "cut off"),
    "no fixed parameters": (AFFINE, "cut off"),
    "neither": (AFFINE.split("Parameters")[0], "cut off"),
    "two": (2 * (AFFINE + "FixedParameters: 0 0 0\n"), "holds 2 transforms"),
}


@pytest.mark.parametrize("case", CUT)
def test_a_transform_file_that_is_cut_off_or_holds_two_is_refused(tmp_path, case):
    """ITK reads the identity from the one, and the first transform from the other."""
    text, words = CUT[case]
    (tmp_path / "pose.tfm").write_text("#Insight Transform File V1.0\n" + text)
    with pytest.raises(InputError, match=words):
        read_transform(tmp_path / "pose.tfm")
    with pytest.raises(InputError, match=words):
        read_image_to_probe(tmp_path / "pose.tfm")


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import numpy as np
from diffus.errors import DiskError
from diffus.export import SimulatedFrames, export
from diffus.io.sweeps import write_sweep_file
from diffus.io.transforms import write_transform
from diffus.io.volumes import write_volume
from diffus.io.atomic import replacing
from diffus.medium.impedance import load_impedance, save_impedance
from diffus.probe import probe_preset
from diffus.render.settings import RenderSettings
path, kind = Path(sys.argv[1]), sys.argv[2]
pixels = np.random.default_rng(0).integers(1, 255, (3, 40, 40)).astype(np.uint8)
probe, model = probe_preset("linear"), load_impedance()
geometry = probe.slice_geometry()
frames = np.random.default_rng(0).integers(1, 255, (3, geometry.rows, geometry.columns)).astype(np.uint8)
count = 1 if path.suffix in (".nrrd", ".png") and kind == "export" else 3
poses, times = np.tile(np.eye(4), (count, 1, 1)), np.arange(count) / 10
frames = SimulatedFrames(frames[:count], poses, times, probe, RenderSettings())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
try:
    if kind == "sweep":
        write_sweep_file(path, pixels, np.tile(np.eye(4), (3, 1, 1)), np.arange(3.0))
    elif kind == "volume":
        write_volume(path, pixels, np.eye(4))
    elif kind == "export":
        list(export(frames, path))
    elif kind == "weights":
        with replacing(path) as temporary:
            save_impedance(model, temporary)
    else:
        write_transform(path, np.eye(4) + 0.1 * np.eye(4, k=3))
except DiskError as error:
    sys.exit(str(error))
"""
WRITTEN = [("transform", f"pose{end}") for end in (".tfm", ".txt", ".mat", ".h5")]
WRITTEN += [("sweep", f"sweep{end}") for end in (".igs.mha", ".nrrd")]
WRITTEN += [("volume", f"volume{end}") for end in (".nii", ".nii.gz", ".nrrd", ".mha")]
WRITTEN += [("export", f"out{end}") for end in (".seq.nrrd", ".igs.mha", ".nrrd", ".png", ".gif", ".dcm", ".mp4")]
WRITTEN += [("weights", "weights.pt")]


@pytest.mark.parametrize(("kind", "name"), WRITTEN)
def test_a_full_disk_gets_one_sentence_and_leaves_nothing(tmp_path, kind, name):
    """Files in the process may hold 64 bytes: the write fails in the middle, as on a full disk."""
    if name.endswith(".mp4"):
        pytest.importorskip("imageio_ffmpeg", reason="imageio-ffmpeg is not installed: MP4 is not tested")
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / name), kind], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == f"Nothing could be written to {tmp_path}; is the disk full?"
    assert "Traceback" not in done.stderr
    assert os.listdir(tmp_path) == []


def test_a_name_as_long_as_may_be_is_written(tmp_path):
    name = 251 * "n" + ".tfm"
    write_transform(tmp_path / name, POSE)
    assert os.listdir(tmp_path) == [name]


def test_a_name_that_is_no_text_is_refused(tmp_path):
    """SimpleITK would end the process."""
    name = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.nrrd")
    with pytest.raises(InputError, match="not UTF-8"):
        read_volume(name)
    with pytest.raises(InputError, match="not UTF-8"):
        write_slice(name, np.ones((4, 4)), np.eye(4))


def nifti(path, spacing=(1.0, 2.0, 3.0)):
    array = np.random.default_rng(0).integers(0, 999, (12, 13, 14)).astype(np.int16)
    write_image(path, array, spacing=spacing)
    return array


@pytest.mark.parametrize("fraction", [0.05, 0.5, 0.98])
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_a_volume_that_was_cut_off_is_refused(tmp_path, suffix, fraction):
    """ITK reads a cut NIfTI file as whole, the rest zero."""
    path = tmp_path / f"v{suffix}"
    whole = nifti(path)
    assert np.array_equal(read_volume(path).array, whole)
    data = path.read_bytes()
    path.write_bytes(data[: int(fraction * len(data))])
    with pytest.raises(InputError, match=r"cut off|cannot be read"):
        read_volume(path)


def test_a_gzip_stream_that_ends_whole_but_too_early_is_refused(tmp_path):
    nifti(tmp_path / "v.nii")
    (tmp_path / "v.nii.gz").write_bytes(gzip.compress((tmp_path / "v.nii").read_bytes()[:2000]))
    with pytest.raises(InputError, match="cut off: 2000 of 4720 bytes"):
        read_volume(tmp_path / "v.nii.gz")


@pytest.mark.parametrize("size", [0.0, float("nan"), 0.001, 400.0])
def test_a_voxel_size_that_cannot_be_is_refused(tmp_path, size):
    """ITK takes 0 and NaN for 1 mm."""
    nifti(tmp_path / "v.nii")
    data = bytearray((tmp_path / "v.nii").read_bytes())
    data[84:88] = struct.pack("<f", size)
    (tmp_path / "v.nii").write_bytes(data)
    with pytest.raises(InputError, match="mm wide"):
        read_volume(tmp_path / "v.nii")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_a_voxel_size_that_cannot_be_is_refused_in_other_formats_too(tmp_path, suffix):
    nifti(tmp_path / f"v{suffix}", spacing=(1.0, 1.0, 300.0))
    with pytest.raises(InputError, match="300 mm wide"):
        read_volume(tmp_path / f"v{suffix}")


def test_a_header_that_promises_more_than_the_file_can_hold_is_refused(tmp_path):
    """Before anything is allocated: 2000 x 2000 x 2000 voxels are 8 GB."""
    lines = ["NRRD0004", "type: uchar", "dimension: 3", "sizes: 2000 2000 2000", "encoding: gzip", "", ""]
    (tmp_path / "v.nrrd").write_text("\n".join(lines))
    with pytest.raises(InputError, match="promises 8000000000 voxels"):
        read_volume(tmp_path / "v.nrrd")


@pytest.mark.parametrize("suffix", [".tfm", ".h5", ".txt", ".mat"])
def test_every_kind_of_transform_file_comes_back(tmp_path, suffix):
    write_transform(tmp_path / f"pose{suffix}", POSE)
    np.testing.assert_allclose(read_transform(tmp_path / f"pose{suffix}"), POSE, atol=1e-12)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path):
    write_slice(tmp_path / "slice.nrrd", np.ones((4, 4)), np.eye(4))
    before = (tmp_path / "slice.nrrd").read_bytes()
    with pytest.raises(RuntimeError, match="in the middle"), replacing(tmp_path / "slice.nrrd") as temporary:
        temporary.write_bytes(b"half")
        raise RuntimeError("in the middle")
    assert (tmp_path / "slice.nrrd").read_bytes() == before
    assert os.listdir(tmp_path) == ["slice.nrrd"]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        write_slice(tmp_path / "no" / "slice.nrrd", np.ones((4, 4)), np.eye(4))
    with pytest.raises(InputError, match="ending"):
        write_transform(tmp_path / "pose.doc", POSE)
    (tmp_path / "folder.nrrd").mkdir()
    with pytest.raises(InputError, match="cannot be written"):
        write_slice(tmp_path / "folder.nrrd", np.ones((4, 4)), np.eye(4))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '{"1": "spleen", "5": "liver"}'),
        ("b.json", '{"spleen": 1, "liver": 5}'),
        ("c.csv", "index,name\n1,spleen\n5,liver\n"),
        ("d.csv", "name,value\nspleen,1\nliver,5\n"),
        ("e.ctbl", '# Color table file\n1 spleen 1 2 3 255\n5 "liver" 4 5 6 255\n'),
    ],
)
def test_label_tables(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_label_names(tmp_path / name) == {1: "spleen", 5: "liver"}


def test_label_tables_without_a_label(tmp_path):
    (tmp_path / "empty.csv").write_text("index,name\n")
    with pytest.raises(InputError, match="names no label"):
        read_label_names(tmp_path / "empty.csv")
    (tmp_path / "list.json").write_text("[1, 2]")
    with pytest.raises(InputError, match="not a label table"):
        read_label_names(tmp_path / "list.json")


def test_a_transform_that_cannot_be_inverted_is_not_written(tmp_path):
    for matrix in (np.diag([1.0, 1.0, 0.0, 1.0]), np.full((4, 4), np.nan)):
        with pytest.raises(InputError, match=r"cannot be inverted; nothing was written[.]$"):
            write_transform(tmp_path / "flat.tfm", matrix)
    assert not list(tmp_path.iterdir())


DEEP = 100_000 * "[" + 100_000 * "]"
LONG = "1," + 140_000 * "x"


@pytest.mark.parametrize(
    ("read", "name", "text"),
    [
        (read_label_names, "deep.json", DEEP),
        (read_label_names, "long.csv", LONG),
        (read_number_pairs, "long.csv", LONG),
        (read_settings, "deep.json", DEEP),
        (read_landmarks, "deep.json", DEEP),
        (read_landmarks, "deep.mrk.json", DEEP),
        (read_probe_json, "deep.json", DEEP),
        (read_tissues, "long.csv", LONG),
    ],
)
def test_text_that_a_parser_cannot_bear_gets_one_sentence(tmp_path, read, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError):
        read(tmp_path / name)
