"""The A-mode line: depth, time and level of one line's echo; in Python, from the command line, as table and picture."""

import csv
import json
from pathlib import Path

import pytest
import torch
from diffus.errors import InputError
from diffus.io.transforms import write_transform
from diffus.render.a_mode import a_mode
from diffus.render.renderer import UltrasoundRenderer
from PIL import Image
from support.commands import run
from support.phantoms import phantom, probe_of
from support.plate import PLATE_MM, POSE, write_plate_ct

AT_FACE = torch.eye(4, dtype=torch.float64)
BOUNDARIES = {"speckle": False, "attenuation": False}


def one_boundary(maps, x, y, z):
    maps[0][y > 30] = 1.7


def bone_to_the_right(maps, x, y, z):
    maps[0][(y > 25) & (x > 6)] = 6.7


@pytest.mark.parametrize("kind", ["convex", "linear", "phased"])
def test_a_boundary_stands_at_its_depth_and_time(kind):
    depth, time, level = a_mode(UltrasoundRenderer(probe_of(kind, samples=1200), **BOUNDARIES), phantom(), AT_FACE)
    assert (level == -160).all()
    renderer = UltrasoundRenderer(probe_of(kind, samples=1200), **BOUNDARIES)
    depth, time, level = a_mode(renderer, phantom(one_boundary, spacing_mm=0.5), AT_FACE)
    assert depth.shape == time.shape == level.shape == (1200,)
    assert depth[level.argmax()].item() == pytest.approx(30.25, abs=0.3)
    assert time[level.argmax()].item() == pytest.approx(2 * 30.25 / 1.54, abs=0.4)


def test_its_level_is_in_db_of_white_matter_speckle():
    lines = [
        a_mode(UltrasoundRenderer(probe_of("linear"), attenuation=False, seed=s), phantom(), AT_FACE)[2][60:380]
        for s in range(20)
    ]
    assert 10 * torch.log10((10 ** (torch.stack(lines) / 10)).mean()).item() == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("kind", ["convex", "linear", "phased"])
def test_lines_are_chosen_by_lateral_position_or_ray(kind):
    probe = probe_of(kind)
    renderer, medium = UltrasoundRenderer(probe, **BOUNDARIES), phantom(bone_to_the_right)
    left, right = (a_mode(renderer, medium, AT_FACE, mm)[2].max().item() for mm in (-10.0, 10.0))
    assert right > left + 30
    number = probe.rays - 5
    place = probe.sample_points()[0][0, number]
    focus = torch.argmin((place[:, 1] - 30).abs())
    by_ray = a_mode(renderer, medium, AT_FACE, ray=number)[2]
    by_place = a_mode(renderer, medium, AT_FACE, place[focus, 0].item())[2]
    assert torch.equal(by_ray, by_place)
    for wrong in ({"lateral_mm": 200.0}, {"ray": probe.rays}, {"ray": -1}):
        with pytest.raises(InputError, match="outside of the fan"):
            a_mode(renderer, medium, AT_FACE, **wrong)


@pytest.fixture
def case(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_plate_ct("ct.nrrd")
    write_transform("pose.tfm", POSE)
    probe = {"type": "convex", "radius_mm": 15, "fov_deg": 60, "frequency_mhz": 5, "depth_mm": 45, "focus_mm": 30}
    Path("probe.json").write_text(json.dumps(probe | {"rays": 48, "samples": 180}))
    given = {"volume": "ct.nrrd", "kind": "ct", "probe": "probe.json", "pose": "pose.tfm", "output": "slice.nrrd"}
    return given


def test_render_writes_the_line_as_a_table_and_as_a_picture(case):
    result = run("render", {**case, "a-mode": "line.csv", "lateral-mm": "2"}, "--no-speckle")
    assert result.exit_code == 0, result.output
    assert "line.csv" in result.output
    rows = list(csv.DictReader(Path("line.csv").read_text().splitlines()))
    assert len(rows) == 180
    inner = [row for row in rows if float(row["depth_mm"]) > 10]
    loudest = max(inner, key=lambda row: float(row["level_db"]))
    assert float(loudest["depth_mm"]) == pytest.approx(PLATE_MM, abs=1.5)
    assert float(loudest["time_us"]) == pytest.approx(2 * float(loudest["depth_mm"]) / 1.54, abs=1e-3)
    assert run("render", {**case, "a-mode": "line.png", "ray": "20", "png": "slice.png"}).exit_code == 0
    assert Image.open("line.png").size == (900, 420)
    assert Path("slice.png").exists()


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"ray": "3"}, "--a-mode"),
        ({"a-mode": "l.csv", "ray": "3", "lateral-mm": "1"}, "not both"),
        ({"a-mode": "l.csv", "ray": "300"}, "outside of the fan"),
        ({"a-mode": "l.txt"}, ".csv"),
    ],
    ids=str,
)
def test_bad_lines_get_one_sentence_and_nothing_is_written(case, wrong, says):
    result = run("render", {**case, **wrong})
    assert result.exit_code == 2
    assert says in result.output
    assert not Path("slice.nrrd").exists()
