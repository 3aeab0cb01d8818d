"""The command line end to end, on files, and every bad input: one sentence, status 2, nothing written."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import diffus
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from diffus.io.transforms import write_transform
from diffus.medium import load_impedance
from diffus.probe import preset_names, probe_from_dict, probe_preset, read_probe_json
from PIL import Image
from support.commands import assert_one_sentence, run
from support.plate import PLATE_MM, POSE, SHAPE, SPACING, write_plate_ct

PROBE = {
    "type": "linear",
    "width_mm": 30,
    "frequency_mhz": 5,
    "depth_mm": 45,
    "focus_mm": 30,
    "rays": 48,
    "samples": 180,
}


@pytest.fixture
def case(tmp_path, monkeypatch):
    """A folder with ct.nrrd, pose.tfm and probe.json, and the options that render them."""
    monkeypatch.chdir(tmp_path)
    write_plate_ct("ct.nrrd")
    write_transform("pose.tfm", POSE)
    Path("probe.json").write_text(json.dumps(PROBE))
    return {"volume": "ct.nrrd", "kind": "ct", "pose": "pose.tfm", "probe": "probe.json", "output": "slice.nrrd"}


def test_a_boundary_lies_at_its_place_in_the_world(case):
    result = run("render", {**case, "png": "slice.png"}, "--no-speckle", "--noise-db", "none", "--gain-db", "-40")
    assert result.exit_code == 0, result.output
    image = sitk.ReadImage("slice.nrrd")
    pixels = sitk.GetArrayFromImage(image)
    assert pixels.dtype == np.uint8
    assert pixels.shape[0] == 1
    assert 100 < pixels.max() < 255  # not clipped: the brightest row is the boundary
    column = pixels.shape[2] // 2
    row = int(pixels[0, 20:, column].argmax()) + 20  # the first rows are the skin
    lps = image.TransformIndexToPhysicalPoint((column, row, 0))
    assert lps[2] == pytest.approx(POSE[2, 3] - PLATE_MM, abs=SPACING)
    assert -lps[0] == pytest.approx(38.0, abs=0.2)
    assert -lps[1] == pytest.approx(33.0, abs=1e-3)
    picture = np.asarray(Image.open("slice.png"))  # with a strip for the word, for the plate leaves no corner free
    np.testing.assert_array_equal(picture[-pixels.shape[1] :], pixels[0])
    assert picture[: -pixels.shape[1]].max() == 255
    said = json.loads(image.GetMetaData("DiffUS_Provenance"))
    assert said == json.loads(Image.open("slice.png").text["DiffUS_Provenance"])
    assert {what: one["name"] for what, one in said["inputs"].items()} == {
        "volume": "ct.nrrd",
        "pose": "pose.tfm",
        "probe_name": "probe.json",
    }
    assert said["settings"]["gain_db"] == -40
    assert said["settings"]["noise_db"] is None
    assert said["probe"]["type"] == PROBE["type"]
    assert run("render", {**case, "a-mode": "line.png"}).exit_code == 0
    assert "ct.nrrd" in Image.open("line.png").text["DiffUS_Provenance"]


def test_the_seed_and_the_settings_reach_the_image(case):
    def rendered(*arguments):
        result = run("render", case, *arguments)
        assert result.exit_code == 0, result.output
        return sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd")).astype(int)

    first = rendered("--seed", "1")
    np.testing.assert_array_equal(first, rendered("--seed", "1"))
    assert (first != rendered("--seed", "2")).mean() > 0.2
    assert rendered("--seed", "1", "--gain-db", "-20").mean() < first.mean() - 10
    # Behind the plate little is left, for both of its faces reflect: the gain makes it visible.
    bright, behind = ("--seed", "1", "--gain-db", "15"), slice(-20, None)
    through = rendered(*bright, "--no-attenuation")[0, behind].mean()
    assert through > rendered(*bright)[0, behind].mean() + 20
    free = ("--seed", "1", "--gain-db", "0", "--no-attenuation")
    assert rendered(*free, "--echo", "layered")[0, behind].mean() > rendered(*free)[0, behind].mean() + 5
    hidden = rendered("--seed", "1", "--start-depth", "20")[0]
    assert hidden[10:40].mean() < first[0, 10:40].mean() / 2


def bad_inputs():
    """name: (options that replace the good ones, what the sentence says, a function that prepares the folder)."""

    def image(array, **options):
        return lambda: sitk.WriteImage(sitk.GetImageFromArray(array, **options), "bad.nrrd")

    def pose(matrix):
        return lambda: write_transform("bad.tfm", matrix)

    def probe(**changes):
        return lambda: Path("bad.json").write_text(json.dumps({**PROBE, **changes}))

    far = POSE.copy()
    far[:3, 3] += 500.0
    noise = np.random.default_rng(1).normal(40, 5, (8, 9, 10)).astype(np.float32)
    with_nan = noise.copy()
    with_nan[2, 3, 4] = np.nan
    singular = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"
    singular += "Parameters: 1 0 0 0 1 0 0 0 0 1 2 3\nFixedParameters: 0 0 0\n"
    return {
        "missing volume": ({"volume": "none.nrrd"}, "There is no file", None),
        "damaged volume": ({"volume": "bad.nrrd"}, "cannot be read", lambda: Path("bad.nrrd").write_text("NRRD")),
        "2-D volume": ({"volume": "bad.nrrd"}, "not a 3-D volume", image(noise[0])),
        "vector volume": ({"volume": "bad.nrrd"}, "values per voxel", image(np.stack([noise] * 3, -1), isVector=True)),
        "constant volume": ({"volume": "bad.nrrd"}, "same value", image(0 * noise)),
        "NaN": ({"volume": "bad.nrrd"}, "NaN", image(with_nan)),
        "missing pose": ({"pose": "none.tfm"}, "There is no file", None),
        "singular pose": ({"pose": "bad.tfm"}, "singular", lambda: Path("bad.tfm").write_text(singular)),
        "scaled pose": ({"pose": "bad.tfm"}, "scales", pose(POSE @ np.diag([2.0, 2.0, 2.0, 1.0]))),
        "mirrored pose": ({"pose": "bad.tfm"}, "mirrors", pose(POSE @ np.diag([-1.0, 1.0, 1.0, 1.0]))),
        "outside": ({"pose": "bad.tfm"}, "outside", pose(far)),
        "unknown preset": ({"probe": "no-such-probe"}, "craniotomy-convex", None),
        "missing probe": ({"probe": "none.json"}, "none.json", None),
        "unknown key": ({"probe": "bad.json"}, "colour", probe(colour="red")),
        "depth": ({"probe": "bad.json"}, "depth_mm", probe(depth_mm=-5)),
        "frequency": ({"probe": "bad.json"}, "frequency_mhz", probe(frequency_mhz=5000)),
        "echo": ({"echo": "loud"}, "transmission", None),
        "setting": ({"dynamic-range-db": -3}, "dynamic_range_db", None),
        "device": ({"device": "abacus"}, "abacus", None),
        "no folder": ({"output": "none/slice.nrrd"}, "does not exist", None),
        "output over input": ({"output": "ct.nrrd"}, "would be overwritten", None),
        "png over pose": ({"png": "./pose.png", "pose": "pose.png"}, "would be overwritten", None),
        "start depth": ({"start-depth": 150}, "below the image", None),
        "ending": ({"output": "slice.bmp"}, "ending", None),
        "no png folder": ({"png": "none/slice.png"}, "does not exist", None),
        "mask grid": ({"mask": "bad.nrrd"}, "not on the volume's grid", image((noise > 40).astype(np.uint8))),
        "scanner": ({"scanner": "unheard-of"}, "unheard-of", None),
        "table of a CT": ({"labels-table": "probe.json"}, "for --kind labels", None),
        "t2 of a CT": ({"contrast": "t2"}, "for --kind mri", None),
        "mask of labels": ({"kind": "labels", "volume": "ct.nrrd", "mask": "ct.nrrd"}, "label 0", None),
        "preset": ({"preset": "glossy"}, "paper", None),
        "missing table": ({"kind": "labels", "labels-table": "none.csv"}, "There is no file", None),
    }


@pytest.mark.parametrize("name", bad_inputs())
def test_bad_input_gets_one_sentence_and_writes_nothing(case, name):
    changes, message, prepare = bad_inputs()[name]
    if prepare:
        prepare()
    before = sorted(Path().iterdir())
    result = run("render", {**case, **changes})
    assert_one_sentence(result, message)
    assert sorted(Path().iterdir()) == before


def test_a_failed_render_keeps_the_old_slice(case):
    Path("slice.nrrd").write_bytes(b"of yesterday")
    assert run("render", {**case, "probe": "no-such-probe"}).exit_code == 2
    assert Path("slice.nrrd").read_bytes() == b"of yesterday"


def test_labels_are_rendered_by_their_names(case):
    labels = np.zeros(SHAPE, np.uint8)
    labels[:] = 5
    labels[POSE[2, 3] - SPACING * np.arange(SHAPE[0]) > PLATE_MM] = 18
    labels[:2] = 0
    image = sitk.GetImageFromArray(labels)
    image.CopyInformation(sitk.ReadImage("ct.nrrd"))
    sitk.WriteImage(image, "labels.nrrd")
    Path("names.csv").write_text("index,name\n5,liver\n18,vertebrae_L5\n")
    options = {**case, "kind": "labels", "volume": "labels.nrrd"}
    result = run("render", {**options, "labels-table": "names.csv"})
    assert result.exit_code == 0, result.output
    by_name = sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd"))
    assert by_name.max() > 100
    assert run("render", options).exit_code == 0  # 5 and 18 are liver and L5 in TotalSegmentator's own table too
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd")), by_name)
    Path("names.csv").write_text("index,name\n5,liver\n")
    result = run("render", {**options, "labels-table": "names.csv"})
    assert result.exit_code == 2
    assert "18" in result.stderr


def test_an_mri_is_rendered_with_weights_of_ones_own(case):
    t1 = np.random.default_rng(0).normal(0, 3, SHAPE) + 100
    t1[:20], t1[20:30] = t1[:20] + 60, t1[20:30] + 30
    image = sitk.GetImageFromArray(t1.astype(np.float32))
    image.CopyInformation(sitk.ReadImage("ct.nrrd"))
    sitk.WriteImage(image, "t1.nrrd")
    options = {**case, "kind": "mri", "volume": "t1.nrrd"}
    assert run("render", options).exit_code == 0
    shipped = sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd"))
    Path("points.csv").write_text("level,impedance\n0,1.5\n0.6,3\n1,1.7\n")
    result = run("train-impedance", {"output": "own.pt", "points": "points.csv", "epochs": 300})
    assert result.exit_code == 0, result.output
    assert run("render", {**options, "weights": "own.pt"}).exit_code == 0
    assert (sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd")) != shipped).any()
    assert run("render", {**options, "weights": "points.csv"}).exit_code == 2


def test_training_is_repeatable_and_checked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.pt", "b.pt"):
        assert run("train-impedance", {"output": name, "epochs": 5, "seed": 3}).exit_code == 0
    first, second = (load_impedance(name).state_dict() for name in ("a.pt", "b.pt"))
    assert all((first[key] == second[key]).all() for key in first)
    Path("one.csv").write_text("0,1.5\n")
    Path("three.csv").write_text("0,1.5,7\n1,1.6,8\n")
    Path("two.csv").write_text("0,1.5\n1,1.6\n")
    for bad in (
        {"points": "one.csv"},
        {"points": "three.csv"},
        {"points": "none.csv"},
        {"epochs": 0},
        {"tissues": "none.csv"},
        {"points": "two.csv", "tissues": "seed"},
        {"figure": "figure.jpg"},
    ):
        result = run("train-impedance", {"output": "c.pt", **bad})
        assert result.exit_code == 2, result.output
        assert not Path("c.pt").exists()


def test_the_papers_tissues_are_learned_and_drawn(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"output": "seed.pt", "points": "seed", "figure": "figure.png"}
    result = run("train-impedance", options)
    assert result.exit_code == 0, result.output
    printed = {line[:13].strip(): line for line in result.output.splitlines() if " MRayl for " in line}
    assert list(printed) == ["air", "fat", "liver", "bone", "white matter", "muscle", "grey matter", "csf"]
    assert "for 1.34" in printed["fat"]
    pairs = [re.findall(r"([\d.]+) MRayl for ([\d.]+)", line)[0] for line in printed.values()]
    error = np.sqrt(np.mean([(float(learned) - float(given)) ** 2 for learned, given in pairs]))
    assert float(re.search(r"error ([\d.]+) MRayl", result.output)[1]) == pytest.approx(error, abs=1e-4)
    model = load_impedance("seed.pt")
    levels = torch.tensor([0.104, 0.312, 1.0])
    assert model(levels).tolist() == pytest.approx([1.34, 1.60, 1.50], abs=0.05)
    assert (model(torch.linspace(-0.5, 1.5, 101)) > 0).all()  # also where there is no tissue darker than air
    pixels = np.asarray(Image.open("figure.png").convert("RGB"))
    assert pixels.shape[1] > 1.5 * pixels.shape[0]  # all tissues, and soft tissue alone
    reds = (pixels[..., 0] > 180) & (pixels[..., 1] < 80)
    assert reds.sum() > 300  # the points
    run("train-impedance", {"output": "other.pt", "tissues": "seed", "epochs": 5})
    run("train-impedance", {"output": "same.pt", "epochs": 5})
    first, second = (load_impedance(name).state_dict() for name in ("other.pt", "same.pt"))
    assert all((first[key] == second[key]).all() for key in first)  # the seed gives no brain tissue


def test_tissues_by_the_name_of_their_table(case):
    labels = sitk.GetImageFromArray(np.where(np.arange(SHAPE[0])[:, None, None] < 30, 1, 2) + np.zeros(SHAPE, int))
    labels.CopyInformation(sitk.ReadImage("ct.nrrd"))
    sitk.WriteImage(sitk.Cast(labels, sitk.sitkUInt8), "labels.nrrd")
    Path("names.json").write_text('{"1": "liver", "2": "bone"}')
    Path("soft.json").write_text('{"1": "fat", "2": "liver"}')
    options = {"volume": "labels.nrrd", "kind": "labels", "labels-table": "names.json"}
    for name in ("diffus", "seed"):
        assert run("maps", {**options, "tissues": name, "output": name}).exit_code == 0
    ours, seed = (sitk.GetArrayFromImage(sitk.ReadImage(f"{name}/impedance_mrayl.nrrd")) for name in ("diffus", "seed"))
    assert (ours.max(), ours.min()) == pytest.approx((6.707, 1.711))
    assert (seed.max(), seed.min()) == pytest.approx((6.46, 1.66))
    images = []
    Path("settings.json").write_text('{"settings": {"noise_db": null}, "tissues": "seed"}')
    for chosen in ({"settings": "settings.json"}, {"noise-db": "none", "tissues": "seed"}, {"noise-db": "none"}):
        soft = {**case, **options, "labels-table": "soft.json", "gain-db": -20}
        assert run("render", {**soft, **chosen}).exit_code == 0
        image = sitk.ReadImage("slice.nrrd")
        images.append(sitk.GetArrayFromImage(image))
        said = json.loads(image.GetMetaData("DiffUS_Provenance"))
        assert said["options"].get("tissues") == chosen.get("tissues")  # a table by name, of which there is no checksum
        assert said["inputs"]["labels_table"]["name"] == "soft.json"
        assert not {"labels_table", "probe_name"} & set(said["options"])
    assert (images[0] == images[1]).all()  # the settings say which table they are for
    assert (images[0] != images[2]).any()
    assert_one_sentence(run("maps", {**options, "tissues": "mine", "output": "mine"}), "There is no file mine")
    assert_one_sentence(run("render", {**case, "tissues": "seed"}), "--tissues is for --kind mri or labels")


def test_the_papers_pipeline(case):
    assert run("render", case, "--preset", "paper").exit_code == 0
    paper = sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd"))
    assert run("render", case).exit_code == 0
    assert (sitk.GetArrayFromImage(sitk.ReadImage("slice.nrrd")) != paper).mean() > 0.5


@pytest.mark.bad_input
def test_a_preset_beside_a_file_of_all_settings_is_refused(case):
    Path("settings.json").write_text('{"settings": {"gain_db": 3.0}}')
    bad = run("render", {**case, "settings": "settings.json", "preset": "cardiac"})
    assert_one_sentence(bad, "--preset and --settings")


def test_presets_are_listed_and_can_be_edited(case):
    listed = run("presets").output
    assert len(preset_names()) >= 5
    for name in preset_names():
        assert name in listed
        text = run("presets", {}, name).output
        assert probe_from_dict(json.loads(text)) == probe_preset(name)
    assert run("presets", {}, "no-such-probe").exit_code == 2


def test_fan_of_an_image_becomes_a_probe_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shape = {"type": "convex", "radius_mm": 40.0, "fov_deg": 60.0, "depth_mm": 90.0, "mm_per_pixel": 0.4}
    wanted = probe_from_dict({key: value for key, value in (PROBE | shape).items() if key != "width_mm"})
    geometry = wanted.slice_geometry()
    inside = wanted.polar_coordinates(geometry.pixel_centres()).numpy()
    inside = ((inside >= 0) & (inside <= (wanted.rays - 1, wanted.samples - 1))).all(-1)
    noise = np.random.default_rng(0).rayleigh(60, inside.shape).clip(8, 255)
    Image.fromarray(np.pad(np.where(inside, noise, 0), 20).astype(np.uint8)).save("real.png")
    result = run("fan", {"output": "fan.json"}, "real.png")
    assert result.exit_code == 2
    assert "--mm-per-pixel" in result.stderr
    result = run("fan", {"mm-per-pixel": 0.4, "output": "fan.json"}, "real.png")
    assert result.exit_code == 0, result.output
    found = read_probe_json("fan.json")
    assert found.type == "convex"
    assert found.radius_mm == pytest.approx(wanted.radius_mm, abs=1.5)
    assert found.fov_deg == pytest.approx(wanted.fov_deg, abs=1.5)
    assert found.depth_mm == pytest.approx(wanted.depth_mm, abs=1.5)
    assert found.mm_per_pixel == pytest.approx(0.4)
    assert "convex" in result.output
    assert "uncertain" not in result.output
    sample = wanted.polar_coordinates(geometry.pixel_centres()).numpy()[..., 1]
    near = inside & (sample < 0.65 * wanted.samples)
    Image.fromarray(np.pad(np.where(near, noise, 0), 20).astype(np.uint8)).save("dark.png")
    assert "depth is uncertain" in run("fan", {"mm-per-pixel": 0.4}, "dark.png").output
    result = run("fan", {"mm-per-pixel": 0.4, "depth-mm": 90, "output": "fan.json"}, "dark.png")
    assert read_probe_json("fan.json").depth_mm == 90.0
    assert "uncertain" not in result.output


def test_an_image_without_a_fan_is_an_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((64, 64), 9, np.uint8)).save("flat.png")
    result = run("fan", {"mm-per-pixel": 0.4, "output": "fan.json"}, "flat.png")
    assert result.exit_code == 2
    assert not Path("fan.json").exists()


def test_the_program_itself(tmp_path):
    """As a user runs it: from any folder, the sentence on stderr, nothing on stdout."""
    command = [sys.executable, "-m", "diffus"]
    environment = {**os.environ, "PYTHONPATH": str(Path(diffus.__file__).parents[1])}
    done = subprocess.run(
        [*command, "presets", "nothing"], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: There is no probe preset 'nothing'")
