"""`make demo`, shortened: what it writes is there, says what the probe saw, and the registration finds its way back."""

import dataclasses
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from diffus.io.transforms import read_transform
from diffus.sweep.sweep import read_sweep
from PIL import Image
from rich.console import Console

FRAMES = 3
TOOLS = Path(__file__).resolve().parents[1] / "tools"


def test_the_tools_load_as_programs(tmp_path):
    """As `make demo` starts them: with nothing on the path but their own folder and what is installed."""
    names = sorted(path.stem for path in TOOLS.glob("*.py"))
    code = f"import sys; sys.path.insert(0, {str(TOOLS)!r})\nfor name in {['demo', *names]!r}: __import__(name)"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The folder of a shortened demo, and what it printed."""
    import demo
    import demo_register

    folder = tmp_path_factory.mktemp("demo") / "new"
    search = dataclasses.replace(demo_register.SETTINGS.search, samples=6144, around=64, copies=6, starts=24)
    console = Console(record=True, width=300)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "FRAMES", FRAMES)
        patch.setattr(demo, "console", console)
        patch.setattr(demo_register, "SWEEP", {"frames": 16, "size": 144, "mm_per_pixel": 0.6})
        patch.setattr(demo_register, "SETTINGS", dataclasses.replace(demo_register.SETTINGS, search=search))
        patch.setattr("sys.argv", ["demo.py", str(folder)])
        demo.main()
    return folder, console.export_text()


@pytest.fixture(scope="module")
def folder(made):
    return made[0]


def test_the_sweep_is_there_frame_by_frame(folder):
    image = sitk.ReadImage(str(folder / "simulated_slices.seq.nrrd"))
    frames = np.moveaxis(sitk.GetArrayFromImage(image), -1, 0).squeeze()
    assert frames.shape[0] == FRAMES
    assert frames.dtype == np.uint8
    assert (np.diff(frames.astype(int), axis=0) != 0).mean() > 0.2
    assert all(frame.max() > 150 for frame in frames)


def test_the_scene_holds_what_slicer_needs(folder):
    with zipfile.ZipFile(folder / "diffus_demo.mrb") as archive:
        names = archive.namelist()
        scene = archive.read(next(name for name in names if name.endswith(".mrml"))).decode()
    wanted = (
        "MNI152 T1.nrrd",
        "simulated_slices.seq.nrrd",
        "probe_poses.seq.mha",
        ".vtk",
        "tracked_sweep Image.seq.nrrd",
    )
    for suffix in (*wanted, "Registered MRI to ultrasound.h5", "Registration before and after.nrrd"):
        assert any(name.endswith(suffix) for name in names), suffix
    for tag in ("SequenceBrowser", "ScriptedModule", "SliceComposite", "LinearTransform"):
        assert f"<{tag}" in scene
    for module in ("DiffUSRender", "DiffUSRegister"):
        assert f'ModuleName ="{module}"' in scene


def test_the_registration_finds_its_way_back_and_says_so(made):
    folder, printed = made
    start, end = (
        float(x) for x in re.search(r"Target error: ([\d.]+) mm at the start, ([\d.]+) mm after", printed).groups()
    )
    assert start > 11
    assert end < 1.5
    report = json.loads((folder / "registration.json").read_text())
    assert f"Verdict: {report['verdict']} " in printed
    assert report["verdict"] in ("trusted", "check")
    np.testing.assert_allclose(read_transform(folder / "mri_to_reference.tfm"), report["mri_to_reference"], atol=1e-9)
    assert np.linalg.norm((read_transform(folder / "first_guess.tfm") - report["mri_to_reference"])[:3, 3]) > 5
    assert len(read_sweep(folder / "tracked_sweep.igs.mha")) == 16


@pytest.mark.parametrize("name", ["panel.png", "registration.png"])
def test_the_pictures_show_something(folder, name):
    pixels = np.asarray(Image.open(folder / name).convert("RGB"), dtype=float)
    assert pixels.shape[1] >= 1200
    assert pixels.std() > 30


def test_nothing_else_is_left_behind(folder):
    names = {"diffus_demo.mrb", "panel.png", "probe_poses.seq.mha", "simulated_slices.seq.nrrd", "registration.png"}
    names |= {"tracked_sweep.igs.mha", "first_guess.tfm", "mri_to_reference.tfm", "registration.json"}
    assert {file.name for file in folder.iterdir()} == names
