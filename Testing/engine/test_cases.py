"""Data sets of ultrasound with MRI in one form: Learn2Reg's JSON, ReMIND's DICOM; and what is wrong in them."""

import csv
import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from diffus.errors import InputError
from diffus.io.dicom_series import read_dicom_series
from diffus.io.volumes import Volume, read_volume
from diffus.studies.ablation import ROWS
from diffus.studies.cases import Case, find_cases, read_scan
from diffus.studies.cases.case import modality_of
from pydicom import dcmread
from support.commands import assert_one_sentence, run
from support.remind import write_patient, write_series
from support.remind2reg import write_case


def volume(size=(7, 6, 5), direction=(0.8, 0.6, 0.0)):
    """A volume of different numbers, whose axes are turned about z."""
    image = sitk.GetImageFromArray(np.random.default_rng(1).integers(1, 999, size).astype(np.uint16))
    c, s, _ = direction
    image.SetDirection((c, -s, 0, s, c, 0, 0, 0, 1))
    image.SetSpacing((0.5, 0.7, 1.3))
    image.SetOrigin((-10, 20, 30))
    return image


# --- DICOM series


@pytest.mark.parametrize("frames", [False, True])
def test_a_series_is_the_volume_that_it_was_made_of(tmp_path, frames):
    image = volume()
    write_series(tmp_path / "series", image, patient="P", study="Preop", series="US", frames=frames)
    sitk.WriteImage(image, str(tmp_path / "same.nrrd"))
    expected, found = read_volume(tmp_path / "same.nrrd"), read_dicom_series(tmp_path / "series")
    np.testing.assert_array_equal(found.array, expected.array)
    np.testing.assert_allclose(found.ijk_to_ras, expected.ijk_to_ras, atol=1e-6)


def spoilt(folder, what):
    files = sorted(folder.iterdir())
    if what == "a gap":
        files[2].unlink()
    elif what == "none":
        shutil.rmtree(folder)
    elif what == "no DICOM":
        files[1].write_text("nothing")
    else:
        dataset = dcmread(files[0])
        if what == "another series":
            dataset.SeriesInstanceUID = "1.2.3.4"
        elif what == "no position":
            del dataset.ImagePositionPatient
        else:
            dataset.ImageOrientationPatient = [0, 1, 0, 1, 0, 0]
        dataset.save_as(files[0])


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("a gap", "at even distances"),
        ("none", "holds no DICOM files"),
        ("no DICOM", "cannot be read as DICOM"),
        ("another series", "more than one DICOM series"),
        ("no position", "is no volume"),
        ("another direction", "is no volume"),
    ],
)
def test_what_is_no_volume_gets_one_sentence(tmp_path, what, words):
    write_series(tmp_path / "series", volume(), patient="P", study="Preop", series="3D_AX_T1")
    spoilt(tmp_path / "series", what)
    with pytest.raises(InputError, match=words):
        read_dicom_series(tmp_path / "series")


# --- ReMIND


@pytest.mark.parametrize(
    ("description", "modality"),
    [
        ("3D_AX_T1_postcontrast", "ceT1"),
        ("3D_AX_T1_precontrast", "T1"),
        ("3D_SAG_T1_MP2RAGE", "T1"),
        ("3D_SAG_T2_SPACE", "T2"),
        ("2D_AX_T2_BLADE", "T2"),
        ("2D_AX_T2_FLAIR", "FLAIR"),
        ("T1ce", "ceT1"),
        ("localizer", None),
    ],
)
def test_a_description_tells_the_modality(description, modality):
    assert modality_of(description) == modality


@pytest.fixture(scope="module")
def remind(tmp_path_factory):
    """A folder with two patients: ultrasound before and after the resection; and after it alone."""
    root = tmp_path_factory.mktemp("manifest")
    write_patient(root, "ReMIND-001", root / "scratch", stages=("predura", "preimri"))
    write_patient(root, "ReMIND-002", root / "scratch", stages=("postdura",))
    shutil.rmtree(root / "scratch")
    return root


def test_the_archives_folders_are_cases(remind):
    for where in (remind, remind / "ReMIND"):
        cases, unusable = find_cases(where)
        assert [case.name for case in cases] == ["ReMIND-001", "ReMIND-002"]
        assert unusable == []
        first, second = cases
        assert set(first.ultrasound) == {"predura", "preimri"}
        assert set(first.mri) == {"ceT1", "T2", "FLAIR"}
        assert (first.choose(None), first.choose("T2"), first.choose("T1")) == ("ceT1", "T2", None)
        assert (first.choose_stage(None), first.choose_stage("preimri")) == ("predura", "preimri")
        assert (second.choose_stage(None), second.choose_stage("preimri")) == ("postdura", None)
        assert "3D_AX_T1_postcontrast" in first.mri["ceT1"].name  # of two, the one acquired in 3-D
    assert set(find_cases(remind)[0][0].segmentations) == {"tumor", "ventricles"}
    assert find_cases(remind / "ReMIND" / "ReMIND-002")[0][0].name == "ReMIND-002"


def test_the_scans_of_a_case_lie_in_one_world(remind):
    case = find_cases(remind)[0][0]
    scans = [read_scan(path) for path in (*case.ultrasound.values(), case.mri["T2"], case.segmentations["tumor"])]
    for scan in scans[1:]:
        np.testing.assert_allclose(scan.ijk_to_ras, scans[0].ijk_to_ras, atol=1e-4)
    np.testing.assert_array_equal(scans[0].array, scans[1].array)  # slices, and frames of one file


def test_a_bad_file_costs_its_series_alone(remind, tmp_path):
    shutil.copytree(remind / "ReMIND", tmp_path / "ReMIND")
    series = next((tmp_path / "ReMIND" / "ReMIND-001").rglob("*USpredura*"))
    for file in series.iterdir():
        file.write_text("nothing")
    shutil.rmtree(next((tmp_path / "ReMIND" / "ReMIND-002").rglob("*-Intraop-*")))
    cases, unusable = find_cases(tmp_path)
    assert [set(case.ultrasound) for case in cases] == [{"preimri"}]
    assert unusable == ["ReMIND-002"]


def test_what_a_case_has_segmented_lies_on_the_grid_of_its_mri(remind):
    case = find_cases(remind)[0][0]
    mri = read_scan(case.mri["T2"])
    labels, table = case.segmented(mri)
    assert table == {1: "csf", 3: "tumour"}
    mask = read_volume(case.segmentations["tumor"]).array > 0
    np.testing.assert_array_equal(labels == 3, mask)  # which lies over the ventricles, drawn alike
    half = Volume(mri.array[::2, ::2, ::2], mri.ijk_to_ras @ np.diag([2.0, 2.0, 2.0, 1.0]))
    np.testing.assert_array_equal(case.segmented(half)[0], labels[::2, ::2, ::2])
    assert Case("alone", {}, {}).segmented(mri) is None


def table_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_the_ablation_takes_the_archives_folder(remind, tmp_path):
    table = tmp_path / "table.csv"
    options = {"cases": remind, "stage": "preimri", "modality": "T2", "frames": 1, "output": table}
    result = run("study ablation", options)
    assert result.exit_code == 0, result.output
    assert [row["case"] for row in table_of(table)] == ["ReMIND-001 T2 preimri"] * len(ROWS)
    assert "ReMIND-002: no preimri" in result.output
    scores = [row["mse"] for row in table_of(table)]
    assert run("study ablation", options, "--segmentations").exit_code == 0
    changed = [row["mse"] for row in table_of(table)]
    assert changed[0] == scores[0]  # the volume's slice
    assert changed[-1] != scores[-1]


def test_a_data_set_is_listed_and_written_as_volumes(remind, tmp_path):
    listed = run("study cases", None, remind)
    assert listed.exit_code == 0, listed.output
    lines = {line.split()[0]: line for line in listed.output.splitlines()[1:]}
    assert set(lines) == {"ReMIND-001", "ReMIND-002"}
    assert all(what in lines["ReMIND-001"] for what in ("predura, preimri", "ceT1", "tumor"))
    written = run("study cases", {"case": "ReMIND-001", "output": tmp_path / "scans"}, remind)
    assert written.exit_code == 0, written.output
    names = {path.name for path in (tmp_path / "scans").iterdir()}
    what = ("predura", "preimri", "ceT1", "T2", "FLAIR", "tumor", "ventricles")
    assert names == {f"ReMIND-001_{one}.nrrd" for one in what}
    series, file = read_scan(find_cases(remind)[0][0].mri["T2"]), read_volume(tmp_path / "scans" / "ReMIND-001_T2.nrrd")
    np.testing.assert_array_equal(file.array, series.array)
    np.testing.assert_allclose(file.ijk_to_ras, series.ijk_to_ras, atol=1e-6)
    assert_one_sentence(run("study cases", {"case": "ReMIND-009"}, remind), "has no case ReMIND-009")
    assert_one_sentence(run("study cases", {"output": tmp_path / "scans"}, remind), "is there already")
    assert_one_sentence(run("study cases", None, tmp_path / "nowhere"), "There is no folder")


# --- Learn2Reg


@pytest.fixture
def learn2reg(tmp_path):
    """A folder with two cases of another name than ReMIND2Reg's, and its JSON."""
    (tmp_path / "imagesTr").mkdir()
    for number in (3, 4):
        write_case(tmp_path / "imagesTr", number, size=32, mm=3.0)
    images = []
    for path in sorted((tmp_path / "imagesTr").iterdir()):
        renamed = path.with_name(path.name.replace("ReMIND2Reg", "Brain"))
        path.rename(renamed)
        images.append({"image": f"./imagesTr/{renamed.name}"})
    (tmp_path / "keypointsTr").mkdir()
    (tmp_path / "keypointsTr" / "Brain_0003_0000.csv").write_text("1,2,3\n")
    images[0]["keypoints"] = "./keypointsTr/Brain_0003_0000.csv"
    described = {
        "name": "Brain",
        "pairings": "paired",
        "modality": {"0": "US", "1": "MR", "2": "MR"},
        "tensorImageSize": {"0": "3D"},
        "training": images,
        "training_paired_images": [
            {"fixed": "./imagesTr/Brain_0003_0000.nii.gz", "moving": "./imagesTr/Brain_0003_0001.nii.gz"},
            {"fixed": "./imagesTr/Brain_0005_0000.nii.gz", "moving": "./imagesTr/Brain_0005_0001.nii.gz"},
        ],
        "registration_val": [],
    }
    return tmp_path, described


def described_by(case, **changes):
    folder, described = case
    path = folder / "Brain_dataset.json"
    path.write_text(json.dumps({**described, **changes}))
    return path


def test_a_data_set_is_what_its_json_says(learn2reg):
    path = described_by(learn2reg)
    for where in (path.parent, path):
        cases, unusable = find_cases(where)
        assert [case.name for case in cases] == ["Brain_0003", "Brain_0004"]
        assert unusable == []
        assert list(cases[0].ultrasound) == ["intraoperative"]
        assert set(cases[0].mri) == {"ceT1", "T2"}
        assert set(cases[0].keypoints) == {"ultrasound"}
        assert read_scan(cases[0].mri["T2"]).array.shape == (32, 32, 32)


def test_a_json_may_name_the_modalities_otherwise(learn2reg):
    path = described_by(learn2reg, modality={"0": "MR T2-FLAIR", "1": "T1", "2": "iUS"})
    cases, _ = find_cases(path)
    assert set(cases[0].mri) == {"FLAIR", "T1"}
    assert "_0002" in cases[0].ultrasound["intraoperative"].name


def test_pairs_alone_are_cases_too(learn2reg):
    path = described_by(learn2reg, training=[])
    assert [case.name for case in find_cases(path)[0]] == ["Brain_0003"]
    assert [list(case.mri) for case in find_cases(path)[0]] == [["ceT1"]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": {"0": "CT", "1": "CBCT"}}, "has no ultrasound among its modalities"),
        ({"training": [{"image": "./imagesTr/Brain_0099_0000.nii.gz"}], "training_paired_images": []}, "is there"),
        ({"training": [{"image": "./imagesTr/Brain_0003_0001.nii.gz"}], "training_paired_images": []}, "no case"),
    ],
)
def test_a_json_that_gives_no_case_gets_one_sentence(learn2reg, changes, words):
    path = described_by(learn2reg, **changes)
    with pytest.raises(InputError, match=words):
        find_cases(path)


def test_a_damaged_json_gets_one_sentence(learn2reg, tmp_path):
    path = described_by(learn2reg)
    path.write_text(path.read_text()[:50])
    result = run("study ablation", {"cases": path.parent, "output": tmp_path / "table.csv"})
    assert_one_sentence(result, "is not valid JSON")
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="does not describe a data set"):
        find_cases(tmp_path / "other.json")
