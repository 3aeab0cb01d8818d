"""`fit` on files, and `render` with what it wrote."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from diffus.io.transforms import write_transform
from diffus.io.volumes import LPS
from diffus.medium import AcousticMedium, load_impedance
from diffus.medium.tissue import read_tissues
from diffus.probe import write_probe_json
from diffus.render.settings import RenderSettings
from diffus.sweep.sweep import TrackedSweep, write_sweep
from support.commands import run
from support.fitting_cases import PROBE, blobs, fan_sweep, head
from support.phantoms import pose_from

LABELS = {1: "liver", 2: "fluid", 3: "kidney", 4: "tumour"}
TRUE_GAIN_DB = 1.0  # well off the default, from which a fit starts, on the side that the display does not cut off
MRI_TO_REFERENCE = pose_from((10.0, 20.0, -5.0), (12.0, -30.0, 7.0))


def write_image(array, matrix, name):
    image = sitk.GetImageFromArray(array)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # i and j are RAS axes
    image.SetOrigin((LPS @ matrix)[:3, 3].tolist())
    sitk.WriteImage(image, name)


def write_case(medium, **settings):
    sweep = fan_sweep(medium, PROBE, count=5, seed=9, **settings)
    moved = MRI_TO_REFERENCE @ sweep.image_to_reference
    write_sweep(TrackedSweep.from_arrays(sweep.frames, moved.numpy(), mask=sweep.mask), "sweep.mha")
    write_transform("initial.tfm", MRI_TO_REFERENCE.numpy())
    write_transform("pose.tfm", np.eye(4))
    write_probe_json(PROBE, "probe.json")


@pytest.fixture
def labels_case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    array, matrix = blobs()
    write_image(array, matrix, "labels.nrrd")
    Path("names.json").write_text(json.dumps(LABELS))
    write_case(AcousticMedium.from_labels(array, LABELS, matrix), gain_db=TRUE_GAIN_DB)
    return {
        "volume": "labels.nrrd",
        "kind": "labels",
        "labels_table": "names.json",
        "sweep": "sweep.mha",
        "initial": "initial.tfm",
        "probe": "probe.json",
        "output": "fitted.json",
        "frames": 2,
        "steps": 3,
    }


def test_what_fit_writes_render_takes(labels_case):
    chosen = {"parameters": "gain_db,scattering_db", "tissues": "seed", "tissues_output": "tissues.csv"}
    result = run("fit", {**labels_case, **chosen})
    assert result.exit_code == 0, result.output
    assert "held-out NCC" in result.output
    report = json.loads(Path("fitted.json").read_text())
    (gain,) = (number for number in report["numbers"] if number["name"] == "gain_db")
    assert gain["value"] == pytest.approx(TRUE_GAIN_DB, abs=0.5)
    assert report["settings"]["gain_db"] == gain["value"]
    assert report["tissues"] == "seed"
    assert set(report["held_out_ncc"]["after"]) == {"ncc", "ncc_smoothed"}
    tissues = read_tissues("tissues.csv")
    assert tissues["tumour"].scattering_db == pytest.approx(6.0, abs=0.7)

    common = {"volume": "labels.nrrd", "kind": "labels", "labels_table": "names.json", "pose": "pose.tfm"}

    def rendered(**options):
        done = run("render", {**common, "output": "slice.nrrd", **options})
        assert done.exit_code == 0, done.output
        return sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd")).astype(float)

    plain = rendered(probe="probe.json")
    fitted = rendered(probe="fitted.json", settings="fitted.json", tissues="tissues.csv")
    assert fitted.mean() > plain.mean() + 10
    same = rendered(probe="probe.json", gain_db=gain["value"], tissues="tissues.csv")
    np.testing.assert_allclose(fitted, same, atol=1)
    over = rendered(probe="fitted.json", settings="fitted.json", gain_db=RenderSettings().gain_db, tissues="diffus")
    np.testing.assert_allclose(over, plain, atol=1)


def test_a_head_and_its_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    t1, matrix, mask = head()
    write_image(t1, matrix, "t1.nrrd")
    write_image(mask.astype(np.uint8), matrix, "mask.nrrd")
    write_case(AcousticMedium.from_mri(t1, matrix, mask))
    result = run(
        "fit",
        {
            "volume": "t1.nrrd",
            "kind": "mri",
            "mask": "mask.nrrd",
            "sweep": "sweep.mha",
            "initial": "initial.tfm",
            "probe": "probe.json",
            "parameters": "impedance,attenuation_db_cm_mhz",
            "output": "fitted.json",
            "weights_output": "weights.pt",
            "tissues_output": "tissues.csv",
            "frames": 1,
            "steps": 2,
        },
    )
    assert result.exit_code == 0, result.output
    level = torch.tensor([0.0, 0.6, 1.0])
    torch.testing.assert_close(load_impedance("weights.pt")(level), load_impedance()(level), atol=0.02, rtol=0)
    done = run(
        "render",
        {
            "volume": "t1.nrrd",
            "kind": "mri",
            "mask": "mask.nrrd",
            "pose": "pose.tfm",
            "probe": "fitted.json",
            "settings": "fitted.json",
            "weights": "weights.pt",
            "tissues": "tissues.csv",
            "output": "slice.nrrd",
        },
    )
    assert done.exit_code == 0, done.output


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parameters": "gains"}, "There is no parameter 'gains'"),
        ({"parameters": "impedance"}, "Only an MRI has an impedance network"),
        ({"weights_output": "w.pt"}, "--weights-output is for --kind mri"),
        ({"tissues": "names.json"}, "is not a tissue table"),
        ({"tissues": "none.csv"}, "There is no file"),
        ({"contrast": "t2"}, "--contrast is for --kind mri"),
        ({"output": "fitted.txt"}, "cannot be written here"),
        ({"output": "probe.json"}, "would be overwritten"),
        ({"output": "both.csv", "tissues_output": "both.csv"}, "cannot be written here"),  # wrote one over the other
        ({"image_to_probe": "initial.tfm"}, "leave the ImageToProbe calibration out"),
        ({"steps": "1"}, "at least one frame and two steps"),
        ({"sweep": "labels.nrrd"}, "holds no tracking"),
    ],
)
def test_bad_input_is_one_sentence_and_writes_nothing(labels_case, changes, sentence):
    before = sorted(Path().iterdir())
    result = run("fit", {**labels_case, **changes})
    assert result.exit_code == 2, result.output
    assert sentence in result.output
    assert "Traceback" not in result.output
    assert sorted(Path().iterdir()) == before


def test_bad_tissues_and_settings_of_render(labels_case):
    bad = "name,density,speed,impedance_mrayl,attenuation_db_cm_mhz,attenuation_exponent,scattering_db,source\n"
    Path("bad.csv").write_text(bad + "liver,1,1,-1.6,0.5,1,0,x\n")
    Path("bad.json").write_text("[1]")
    Path("odd.json").write_text('{"brightness": 3}')
    common = {"volume": "labels.nrrd", "kind": "labels", "labels_table": "names.json", "pose": "pose.tfm"}
    for options, sentence in (
        ({"tissues": "bad.csv"}, "impedances must be positive"),
        ({"settings": "bad.json"}, "must hold settings by name"),
        ({"settings": "odd.json"}, "Unknown render setting brightness"),
    ):
        result = run("render", {**common, "probe": "probe.json", "output": "slice.nrrd", **options})
        assert result.exit_code == 2, result.output
        assert sentence in result.output
        assert not Path("slice.nrrd").exists()
