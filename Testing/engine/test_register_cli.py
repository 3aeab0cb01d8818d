"""The command line of the registration end to end, on files: what they mean, exit statuses, and every bad input."""

import csv
import json
from pathlib import Path
from types import SimpleNamespace

import diffus.cli.benchmark
import diffus.cli.register as command_line
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from diffus.geometry.pose import twist_to_matrix
from diffus.io.transforms import read_transform, write_transform
from diffus.io.volumes import read_volume
from diffus.medium.tissue import tissue_table
from diffus.register.registration import RegistrationResult
from diffus.register.verdict import CALIBRATED_ON, Judgement, Verdict
from diffus.sweep.from_volume import sweep_from_volume
from diffus.sweep.simulated import displaced, simulate
from diffus.sweep.sweep import TrackedSweep, write_sweep
from support.commands import assert_one_sentence, run
from support.heads import mni152

T1 = "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"
QUICK = {"within-mm": 10, "within-deg": 8, "samples": 2048}
KEYS = {"verdict", "reasons", "expected_error_mm", "expected_error_worst_mm", "calibrated_on", "similarity", "seconds"}
KEYS |= {"frames_used", "frames_skipped", "mri_to_reference"}


def rigid(*twist):
    return twist_to_matrix(torch.tensor(twist, dtype=torch.float64)).numpy()


# --- on a simulated brain


@pytest.fixture(scope="module")
def brain(tmp_path_factory):
    """A folder with a tracked sweep, a first guess 6 mm and 5 degrees off, and the truth."""
    import nilearn.datasets

    folder = tmp_path_factory.mktemp("brain")
    _, grey, white, ijk_to_ras = mni152()
    truth = simulate(grey, white, ijk_to_ras, seed=2, frames=12, size=144, mm_per_pixel=0.6)
    write_sweep(truth.sweep, folder / "sweep.igs.mha")
    write_transform(folder / "initial.tfm", displaced(truth, 6, 5, 3))
    volume = Path(nilearn.datasets.__file__).parent / "data" / T1
    options = {"volume": volume, "kind": "mri", "sweep": folder / "sweep.igs.mha", "initial": folder / "initial.tfm"}
    return folder, truth, {**options, **QUICK}


@pytest.fixture(scope="module")
def registered(brain):
    folder, _, options = brain
    return run("register", {**options, "output": folder / "result.tfm", "report": folder / "report.json"})


def test_registers_and_says_what_it_is_worth(brain, registered):
    folder, truth, _ = brain
    assert registered.exit_code == 0, registered.output
    report = json.loads((folder / "report.json").read_text())
    assert set(report) >= KEYS
    assert report["verdict"] in ("trusted", "check")
    assert truth.error_mm(report["mri_to_reference"]) < 1.0 < truth.error_mm(displaced(truth, 6, 5, 3))
    assert (report["frames_used"], report["frames_skipped"]) == (12, 0)
    for word in (report["verdict"], "expected error", "brain shift", "calibrated on", "similarity", "seconds"):
        assert word in registered.output


def test_the_result_maps_reference_points_to_mri_points_in_lps(brain, registered):
    folder, truth, _ = brain
    text = (folder / "result.tfm").read_text()
    assert "Transform: AffineTransform_double_3_3" in text
    transform = sitk.ReadTransform(str(folder / "result.tfm"))
    flip = np.array([-1.0, -1.0, 1.0])
    in_reference = truth.targets @ truth.mri_to_reference[:3, :3].T + truth.mri_to_reference[:3, 3]
    found = np.array([transform.TransformPoint(point) for point in (in_reference * flip).tolist()]) * flip
    assert np.linalg.norm(found - truth.targets, axis=1).mean() < 1.0


def test_slicer_brings_the_mri_onto_the_ultrasound_with_it(brain, registered):
    import slicer

    folder, truth, _ = brain
    scene = slicer.vtkMRMLScene()
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    storage = slicer.vtkMRMLTransformStorageNode()
    storage.SetFileName(str(folder / "result.tfm"))
    assert storage.ReadData(transform)
    mri = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    mri.SetAndObserveTransformNodeID(transform.GetID())
    world = np.zeros(3)
    for target in truth.targets:
        mri.TransformPointToWorld(target, world)
        true = truth.mri_to_reference[:3, :3] @ target + truth.mri_to_reference[:3, 3]
        assert np.linalg.norm(world - true) < 1.5


def test_where_nothing_overlaps_it_is_rejected_with_a_report_only(brain, tmp_path):
    _, _, options = brain
    far = np.eye(4)
    far[:3, 3] = 900.0
    write_transform(tmp_path / "far.tfm", far)
    options = {**options, "initial": tmp_path / "far.tfm", "output": tmp_path / "result.tfm"}
    result = run("register", {**options, "report": tmp_path / "report.json"})
    assert result.exit_code == 3, result.output
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == "rejected"
    assert "overlap" in result.output
    assert json.loads((tmp_path / "report.json").read_text())["expected_error_mm"] is None
    assert {file.name for file in tmp_path.iterdir()} == {"far.tfm", "report.json"}
    (tmp_path / "report.json").unlink()
    assert run("register", options).exit_code == 3
    assert {file.name for file in tmp_path.iterdir()} == {"far.tfm"}


# --- around an engine that says what it is told to say


class Told:
    """In place of the engine: keeps what it was given, and ends with the verdict and pose of the class."""

    verdict, pose, given, similarity = "trusted", np.eye(4), None, 0.5

    def __init__(self, volume, ijk_to_ras, sweep, **options):
        Told.given = {"volume": volume, "ijk_to_ras": ijk_to_ras, "sweep": sweep, **options}
        self.result = None

    def __iter__(self):
        pose = torch.from_numpy(Told.pose)
        yield SimpleNamespace(stage="searching", progress=0.5, similarity=0.25, mri_to_reference=pose)
        errors = (None, None) if Told.verdict == "rejected" else (0.5, 1.5)
        judgement = Judgement(Verdict(Told.verdict), ("because",), *errors)
        frames = len(self.given["sweep"])
        self.result = RegistrationResult(pose, Told.similarity, judgement, None, {}, 1.0, frames, 0, "lc2", 0, ())


@pytest.fixture
def told(monkeypatch):
    for module in (command_line, diffus.cli.benchmark):
        monkeypatch.setattr(module, "RigidRegistration", Told)
    monkeypatch.setattr(Told, "verdict", "trusted")
    monkeypatch.setattr(Told, "similarity", 0.5)
    monkeypatch.setattr(Told, "pose", rigid(10.0, -20.0, 30.0, 0.4, -0.5, 0.3))
    return Told


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A folder with a volume and a sweep of noise, and the options that register them."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    sitk.WriteImage(sitk.GetImageFromArray(rng.normal(100, 20, (24, 24, 24)).astype(np.float32)), "mri.nrrd")
    poses = np.stack([rigid(0, 0, z, 0, 0, 0) for z in range(4)])
    write_sweep(TrackedSweep.from_arrays(rng.random((4, 24, 24)), poses), "sweep.igs.mha")
    return {"volume": "mri.nrrd", "kind": "mri", "sweep": "sweep.igs.mha", "output": "result.tfm"}


@pytest.mark.parametrize(("verdict", "status"), [("trusted", 0), ("check", 0), ("rejected", 3)])
def test_the_verdict_decides_the_exit_status_and_the_files(case, told, verdict, status):
    told.verdict = verdict
    before = {file.name for file in Path().iterdir()}
    result = run("register", {**case, "report": "report.json"})
    assert result.exit_code == status, result.output
    assert f"{verdict}: because" in result.output
    new = {file.name for file in Path().iterdir()} - before
    assert new == ({"report.json"} if verdict == "rejected" else {"report.json", "result.tfm"})
    report = json.loads(Path("report.json").read_text())
    assert report["verdict"] == verdict
    assert {"volume", "sweep"} <= set(report["provenance"]["inputs"])
    assert report["provenance"]["options"]["seed"] == 0
    errors = (None, None) if status else (0.5, 1.5)
    assert (report["expected_error_mm"], report["expected_error_worst_mm"]) == errors
    assert f"calibrated on {CALIBRATED_ON}"[:60] in result.output
    assert ("not known" in result.output) == (verdict == "rejected")
    if status == 0:
        np.testing.assert_allclose(read_transform("result.tfm"), told.pose, atol=1e-9)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("output", "mri.txt"),  # the volume
        ("output", "sweep.txt"),
        ("output", "./initial.tfm"),
        ("output", "calibration.tfm"),
        ("output", "link.tfm"),
        ("report", "names.json"),
        ("report", "result.tfm"),
    ],
)
def test_what_is_read_is_never_written(case, told, option, value):
    """Neither an input, however it is called, nor both outputs to one file."""
    Path("mri.nrrd").rename("mri.txt")
    Path("sweep.igs.mha").rename("sweep.txt")
    for name in ("initial.tfm", "calibration.tfm"):
        write_transform(name, np.eye(4))
    Path("link.tfm").symlink_to("initial.tfm")
    Path("names.json").write_text('{"1": "liver"}')
    before = {file: file.read_bytes() for file in Path().iterdir()}
    options = {"volume": "mri.txt", "sweep": "sweep.txt", "initial": "initial.tfm"}
    options |= {"image-to-probe": "calibration.tfm", "labels-table": "names.json"}
    result = run("register", {**case, **options, option: value})
    assert_one_sentence(result, value)
    assert {file: file.read_bytes() for file in Path().iterdir()} == before


def test_a_number_that_is_none_is_null_in_the_report(case, told):
    """Python writes NaN, which is no JSON and stops other readers."""
    told.verdict, told.similarity = "rejected", float("nan")
    assert run("register", {**case, "report": "report.json"}).exit_code == 3
    text = Path("report.json").read_text()
    assert "NaN" not in text
    assert json.loads(text)["similarity"] is None


def test_a_rejected_run_says_that_an_older_result_is_there(case, told):
    Path("result.tfm").write_text("of yesterday")
    told.verdict = "rejected"
    result = run("register", case)
    assert result.exit_code == 3
    assert "result.tfm is of an earlier run" in result.output
    assert Path("result.tfm").read_text() == "of yesterday"


def test_everything_reaches_the_engine(case, told):
    initial = rigid(5.0, 6.0, 7.0, 0.1, 0.2, 0.3)
    write_transform("initial.tfm", initial)
    search = {"seed": 7, "method": "ncc", "within-mm": 12, "within-deg": 9, "samples": 128}
    assert run("register", {**case, "kind": "us", "initial": "initial.tfm", **search}).exit_code == 0
    np.testing.assert_allclose(told.given["initial"], initial, atol=1e-9)
    assert (told.given["kind"], told.given["method"], told.given["seed"]) == ("us", "ncc", 7)
    settings = told.given["settings"]
    assert (settings.translation_mm, settings.rotation_deg, settings.search.samples) == (12, 9, 128)
    assert run("register", case).exit_code == 0
    assert told.given["initial"] is None
    assert told.given["settings"] == command_line.Settings()


def test_labels_become_acoustic_impedance(case, told):
    labels = np.full((24, 24, 24), 5, np.uint8)
    labels[:8] = 18
    sitk.WriteImage(sitk.GetImageFromArray(labels), "labels.nrrd")
    Path("names.csv").write_text("5,liver\n18,vertebrae_L5\n")
    options = {**case, "volume": "labels.nrrd", "kind": "labels", "labels-table": "names.csv"}
    assert run("register", options).exit_code == 0
    assert told.given["kind"] == "labels"
    assert told.given["medium"].maps.shape == (4, 24, 24, 24)
    assert told.given["volume"][20, 5, 5] == pytest.approx(1.65, abs=0.1)
    assert told.given["volume"][2, 5, 5] > 3


@pytest.mark.parametrize("kind", ["mri", "mri-t2", "ct"])
def test_a_segmentation_is_for_methods_that_render(case, told, kind):
    labels = np.zeros((24, 24, 24), np.uint8)
    labels[8:16, 8:16, 8:16] = 1
    sitk.WriteImage(sitk.GetImageFromArray(labels), "labels.nrrd")
    Path("names.csv").write_text("1,glioma\n")
    options = {**case, "kind": kind, "segmentation": "labels.nrrd", "segmentation-table": "names.csv"}
    assert_one_sentence(run("register", options), "--method rendered")
    result = run("register", {**options, "method": "rendered"})
    assert result.exit_code == 0, result.output
    assert "1 is tumour (glioma)" in result.output
    tumour = tissue_table()["tumour"]
    found = told.given["medium"].maps[:2, 12, 12, 12].tolist()
    assert found == pytest.approx([tumour.impedance_mrayl, tumour.attenuation_db_cm_mhz], abs=0.01)


def test_a_volume_of_ultrasound_is_cut_into_frames(case, told):
    assert run("register", {**case, "sweep": "mri.nrrd"}, "--from-volume").exit_code == 0
    volume = read_volume("mri.nrrd")
    cut = sweep_from_volume(volume.array, volume.ijk_to_ras)
    assert torch.equal(told.given["sweep"].image_to_reference, cut.image_to_reference)


def without_image_calibration():
    """A sweep that tracks the probe but knows no ImageToProbe."""
    image = sitk.ReadImage("sweep.igs.mha")
    for key in image.GetMetaDataKeys():
        if "ImageToReference" in key:
            image.SetMetaData(key.replace("ImageToReference", "ProbeToReference"), image.GetMetaData(key))
            image.EraseMetaData(key)
    sitk.WriteImage(image, "uncalibrated.igs.mha")


def test_the_calibration_may_stand_beside_the_sweep(case, told):
    without_image_calibration()
    calibration = rigid(1.0, 2.0, 3.0, 0.1, 0.0, 0.2) @ np.diag([0.3, 0.3, 0.3, 1.0])
    write_transform("calibration.tfm", calibration)
    numbers = " ".join(map(str, calibration.ravel()))
    Path("config.xml").write_text(
        f'<PlusConfiguration><Transform From="Image" To="Probe" Matrix="{numbers}"/></PlusConfiguration>'
    )
    for name in ("calibration.tfm", "config.xml"):
        options = {**case, "sweep": "uncalibrated.igs.mha", "image-to-probe": name}
        result = run("register", options)
        assert result.exit_code == 0, result.output
        expected = rigid(0, 0, 2, 0, 0, 0) @ calibration
        np.testing.assert_allclose(told.given["sweep"].image_to_reference[2], expected, atol=1e-9)


# --- bad input


def edited(name, value):
    """Writes bad.igs.mha: the sweep with every key that ends in `name` set to `value`; None removes it."""

    def edit():
        image = sitk.ReadImage("sweep.igs.mha")
        for key in image.GetMetaDataKeys():
            if key.endswith(name):
                image.SetMetaData(key, value) if value is not None else image.EraseMetaData(key)
        sitk.WriteImage(image, "bad.igs.mha")

    return edit


def bad_inputs():
    """name: (options that replace the good ones, what the sentence says, a function that prepares the folder)."""
    noise = np.random.default_rng(1).normal(40, 5, (8, 9, 10)).astype(np.float32)
    hole = noise.copy()
    hole[2, 3, 4] = np.nan

    def volume(array):
        return lambda: sitk.WriteImage(sitk.GetImageFromArray(array), "bad.nrrd")

    def initial(matrix):
        return lambda: write_transform("bad.tfm", matrix)

    def flat():
        sitk.WriteImage(sitk.GetImageFromArray(noise[:1]), "bad.igs.mha")

    def matrix(values):
        return " ".join(map(str, np.asarray(values, dtype=float).ravel()))

    bad = {"sweep": "bad.igs.mha"}
    return {
        "no volume": ({"volume": "none.nrrd"}, "There is no file", None),
        "2-D volume": ({"volume": "bad.nrrd"}, "not a 3-D volume", volume(noise[0])),
        "NaN": ({"volume": "bad.nrrd"}, "NaN", volume(hole)),
        "constant": ({"volume": "bad.nrrd"}, "same value", volume(0 * noise)),
        "no sweep": ({"sweep": "none.igs.mha"}, "There is no file", None),
        "not tracked": ({"sweep": "mri.nrrd"}, "tracking", None),
        "tracking removed": (bad, "track", edited("Transform", None)),
        "all invalid": (bad, "valid tracking", edited("TransformStatus", "INVALID")),
        "NaN pose": (bad, "NaN", edited("Transform", " ".join(["nan"] * 16))),
        "sheared image": (bad, "shears", edited("Transform", matrix([[1, 0.5, 0, 0], *np.eye(4)[1:]]))),
        "mirrored image": (bad, "mirrors", edited("Transform", matrix(np.diag([1, 1, -1, 1])))),
        "short matrix": (bad, "16", edited("Transform", "1 2 3")),
        "one flat image": (bad, "tracking", flat),
        "scaled tool": (
            {"sweep": "uncalibrated.igs.mha", "image-to-probe": "bad.tfm"},
            "scales",
            lambda: (scaled_tool(), write_transform("bad.tfm", np.eye(4))),
        ),
        "uncalibrated": ({"sweep": "uncalibrated.igs.mha"}, "ImageToProbe", without_image_calibration),
        "no calibration": ({"image-to-probe": "none.xml"}, "There is no file", None),
        "other xml": (
            {"image-to-probe": "bad.xml"},
            "Image to Probe",
            lambda: Path("bad.xml").write_text("<PlusConfiguration/>"),
        ),
        "no initial": ({"initial": "none.tfm"}, "There is no file", None),
        "scaled initial": ({"initial": "bad.tfm"}, "initial transform", initial(np.diag([2.0, 2.0, 2.0, 1.0]))),
        "device": ({"device": "abacus"}, "abacus", None),
        "ending": ({"output": "result.csv"}, "ending", None),
        "no folder": ({"output": "none/result.tfm"}, "does not exist", None),
        "no report folder": ({"report": "none/report.json"}, "does not exist", None),
        "report ending": ({"report": "report.txt"}, ".json", None),
        "rendered ultrasound": ({"kind": "us", "method": "rendered"}, "rendered", None),
        "table of an MRI": ({"labels-table": "names.csv"}, "--kind labels", None),
    }


def scaled_tool():
    without_image_calibration()
    image = sitk.ReadImage("uncalibrated.igs.mha")
    for key in image.GetMetaDataKeys():
        if key.endswith("ProbeToReferenceTransform"):
            image.SetMetaData(key, "1.1 0 0 0 0 1.1 0 0 0 0 1.1 0 0 0 0 1")
    sitk.WriteImage(image, "uncalibrated.igs.mha")


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_gets_one_sentence_and_writes_nothing(case, name):
    changes, message, prepare = bad_inputs()[name]
    if prepare:
        prepare()
    before = sorted(Path().iterdir())
    result = run("register", {"report": "report.json", **case, **changes})
    assert_one_sentence(result, message)
    assert sorted(Path().iterdir()) == before


# --- benchmark


def test_benchmark_writes_a_row_for_each_start(case, told):
    truth = rigid(1.0, 2.0, 3.0, 0.1, 0.2, 0.3)
    told.pose = rigid(0.0, 0.0, 0.5, 0.0, 0.0, 0.0) @ truth
    Path("set").mkdir()
    Path("sweep.igs.mha").rename("set/a_1.igs.mha")
    targets = np.random.default_rng(0).normal(0, 20, (5, 3))
    Path("set/a_1.truth.json").write_text(
        json.dumps({"mri_to_reference": truth.tolist(), "targets_mri_ras": targets.tolist()})
    )
    options = {"volume": "mri.nrrd", "kind": "mri", "output": "table.csv", "starts": 4, "off-mm": 9, "off-deg": 0.01}
    result = run("benchmark", options, "set")
    assert result.exit_code == 0, result.output
    rows = list(csv.DictReader(Path("table.csv").read_text().splitlines()))
    assert [row["start"] for row in rows] == ["0", "1", "2", "3"]
    assert {row["error_mm"] for row in rows} == {"0.5000"}
    starts = [float(row["start_mm"]) for row in rows]
    assert len(set(starts)) == 4
    assert 0 < min(starts) < max(starts) < 9.1
    assert "median 0.50 mm" in result.output
    told.verdict = "rejected"
    result = run("benchmark", options, "set")
    assert {row["expected_mm"] for row in csv.DictReader(Path("table.csv").read_text().splitlines())} == {""}
    assert "–" in result.output
    Path("names.csv").write_text("5,liver\n")
    table = {**options, "kind": "labels", "labels-table": "names.csv", "output": "names.csv"}
    assert_one_sentence(run("benchmark", table, "set"), "names.csv")
    assert Path("names.csv").read_text() == "5,liver\n"
    Path("set/a_1.truth.json").write_text("{}")
    assert_one_sentence(run("benchmark", options, "set"), "mri_to_reference")
    assert_one_sentence(run("benchmark", {**options, "pattern": "b*"}, "set"), "There is no b*.igs.mha")
