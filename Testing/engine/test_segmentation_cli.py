"""--segmentation beside an MRI or a CT: on any grid, said in words, and every bad input in one sentence."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from diffus.io.transforms import write_transform
from diffus.io.volumes import read_volume
from diffus.medium.labels import labels_on_grid
from diffus.medium.tissue import tissue_table
from support.commands import assert_one_sentence, run

FLIP = np.diag([-1.0, -1.0, 1.0])  # SimpleITK is LPS


def write(path, array, spacing=1.0, origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((FLIP @ np.array(origin)).tolist())
    image.SetDirection(FLIP.ravel().tolist())
    sitk.WriteImage(image, path)


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A CT of 30 mm with fat in a corner, and a block of liver on a grid of 2 mm that is shifted."""
    monkeypatch.chdir(tmp_path)
    hu = np.full((30, 30, 30), 40, np.int16)
    hu[:4, :4, :4] = -100
    write("ct.nrrd", hu)
    labels = np.zeros((10, 10, 10), np.uint8)
    labels[2:8, 2:8, 2:8] = 7
    write("labels.nrrd", labels, 2.0, (5.0, 5.0, 5.0))
    Path("names.csv").write_text("7,glioma\n")
    return {"volume": "ct.nrrd", "kind": "ct", "output": "maps"}


def test_labels_on_another_grid_say_what_the_tissue_is(case):
    result = run("maps", {**case, "segmentation": "labels.nrrd", "segmentation-table": "names.csv"})
    assert result.exit_code == 0, result.output
    assert "labels.nrrd: 7 is tumour (glioma), 1.73 ml (resampled to the volume's grid)." in result.output
    scattering = read_volume(next(Path("maps").glob("*scattering*"))).array
    tumour = tissue_table()["tumour"].scattering
    assert scattering[14, 14, 14] == pytest.approx(tumour, rel=0.01)
    assert scattering[26, 26, 26] == pytest.approx(1.0, abs=0.05)
    # Voxels of the labels, 2 mm wide, end at 5 + 2 * 2 - 1 = 8 mm.
    assert abs(scattering[6, 14, 14] - 1.0) < 0.1 * (tumour - 1)
    assert abs(scattering[9, 14, 14] - tumour) < 0.35 * (tumour - 1)


def test_an_mri_takes_it_too(case):
    rng = np.random.default_rng(0)
    t1 = ndimage_head(rng)
    write("t1.nrrd", t1)
    options = {**case, "volume": "t1.nrrd", "kind": "mri"}
    extra = {"segmentation": "labels.nrrd", "segmentation-table": "names.csv"}
    for result in (run("maps", {**options, "output": "plain"}), run("maps", {**options, "output": "other", **extra})):
        assert result.exit_code == 0, str(result.exception)
    before, after = (read_volume(next(Path(d).glob("*impedance*"))).array for d in ("plain", "other"))
    assert abs(after[14, 14, 14] - tissue_table()["tumour"].impedance_mrayl) < 0.01
    # The levels of the image's tissues are found without the tumour's voxels, so that the others change a little.
    np.testing.assert_allclose(before[25:, 25:, 25:], after[25:, 25:, 25:], atol=0.005)


def ndimage_head(rng):
    """A brain of two tissues in darkness."""
    k, j, i = np.indices((40, 40, 40)) - 19.5
    radius = np.sqrt(k * k + j * j + i * i)
    head = np.where(radius < 17, np.where(radius < 11, 110.0, 70.0), 0.0)
    return (head + rng.normal(0, 2, head.shape) * (head > 0)).clip(0).astype(np.int16)


def test_the_slice_changes_and_its_provenance_names_the_segmentation(case):
    pose = np.eye(4)
    pose[:3, :3] = [[1, 0, 0], [0, 0, -1], [0, 1, 0]]
    pose[:3, 3] = [15, 15, 1]
    write_transform("pose.tfm", pose)
    probe = {"type": "linear", "width_mm": 20, "frequency_mhz": 5, "depth_mm": 25, "focus_mm": 15}
    Path("probe.json").write_text(json.dumps(probe))
    options = {**case, "pose": "pose.tfm", "probe": "probe.json"}
    extra = {"segmentation": "labels.nrrd", "segmentation-table": "names.csv"}
    assert run("render", {**options, "output": "a.nrrd"}).exit_code == 0
    assert run("render", {**options, "output": "b.nrrd", **extra}).exit_code == 0
    a, b = (sitk.ReadImage(name) for name in ("a.nrrd", "b.nrrd"))
    assert not np.array_equal(sitk.GetArrayFromImage(a), sitk.GetArrayFromImage(b))
    assert "labels.nrrd" in b.GetMetaData("DiffUS_Provenance")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"segmentation": "labels.nrrd"}, "does not name its labels"),
        ({"segmentation-table": "names.csv"}, "give that too"),
        ({"segmentation": "empty.nrrd", "segmentation-table": "names.csv"}, "empty"),
        ({"segmentation": "far.nrrd", "segmentation-table": "names.csv"}, "outside of the volume"),
        ({"segmentation": "labels.nrrd", "segmentation-table": "other.csv"}, "No tissue is known for label 7"),
        ({"kind": "labels", "segmentation": "labels.nrrd"}, "--segmentation is for --kind mri or ct"),
    ],
)
def test_bad_segmentations(case, change, message):
    write("empty.nrrd", np.zeros((4, 4, 4), np.uint8))
    write("far.nrrd", np.arange(64, dtype=np.uint8).reshape(4, 4, 4) // 60, origin=(500.0, 0.0, 0.0))
    Path("other.csv").write_text("1,liver\n")
    assert_one_sentence(run("maps", {**case, **change}), message)
    assert not Path("maps").exists()


def test_labels_move_by_the_nearest_voxel():
    labels = np.arange(60, dtype=np.int32).reshape(3, 4, 5)
    assert labels_on_grid(labels, np.eye(4), labels.shape, np.eye(4)) is labels
    turned = np.eye(4)[[1, 0, 2, 3]]  # i of the one grid is j of the other
    np.testing.assert_array_equal(labels_on_grid(labels, np.eye(4), (3, 5, 4), turned), labels.transpose(0, 2, 1))
    shifted = np.eye(4)
    shifted[0, 3] = 1.3
    moved = labels_on_grid(labels, np.eye(4), labels.shape, shifted)
    np.testing.assert_array_equal(moved[..., :4], labels[..., 1:])
    assert not moved[..., 4].any()
