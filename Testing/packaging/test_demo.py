"""`make demo`, shortened: what it writes is there, and says what the probe saw."""

import zipfile

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

FRAMES = 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    import demo

    folder = tmp_path_factory.mktemp("demo") / "new"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(demo, "FRAMES", FRAMES)
        patch.setattr("sys.argv", ["demo.py", str(folder)])
        demo.main()
    return folder


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
    for suffix in ("MNI152 T1.nrrd", "simulated_slices.seq.nrrd", "probe_poses.seq.mha", ".vtk"):
        assert any(name.endswith(suffix) for name in names), suffix
    for tag in ("SequenceBrowser", "ScriptedModule", "SliceComposite", "LinearTransform"):
        assert f"<{tag}" in scene
    assert 'ModuleName ="DiffUSRender"' in scene


def test_the_panel_is_a_picture(folder):
    pixels = np.asarray(Image.open(folder / "panel.png").convert("RGB"), dtype=float)
    assert pixels.shape[1] >= 1200
    assert pixels.std() > 30


def test_nothing_else_is_left_behind(folder):
    names = {"diffus_demo.mrb", "panel.png", "probe_poses.seq.mha", "simulated_slices.seq.nrrd"}
    assert {file.name for file in folder.iterdir()} == names
