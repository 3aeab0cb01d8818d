"""A volume from slices: phantoms come back, held-out frames are predicted, and the command writes what it says."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.filters import gaussian_blur
from diffus.io.volumes import read_volume
from diffus.medium import AcousticMedium
from diffus.render.renderer import UltrasoundRenderer
from diffus.studies.reconstruction import (
    HeldOutExperiment,
    VolumeReconstruction,
    compound,
    grid_around,
    held_out_frames,
    medium_on_grid,
    resliced,
    uniform_maps,
)
from diffus.sweep.probe_sweep import in_fan, polar_sweep, probe_of_sweep, rigid_poses
from diffus.sweep.sweep import TrackedSweep, write_sweep
from support.commands import run
from support.phantoms import phantom, pose_from, probe_of

PROBE = probe_of("convex", rays=48, samples=120, depth_mm=50.0, mm_per_pixel=0.6)
BRIGHT, DARK = 2.5, 0.15


def balls(maps, x, y, z):
    """A bright ball to the right and a dark one to the left, 25 mm deep."""
    maps[3][(x - 9) ** 2 + (y - 25) ** 2 + z**2 < 7**2] = BRIGHT
    maps[3][(x + 9) ** 2 + (y - 25) ** 2 + z**2 < 7**2] = DARK


@pytest.fixture(scope="module")
def sweep():
    """Eleven parallel frames, 1.2 mm apart, with time gain to the end, of the phantom with two balls."""
    medium = phantom(balls, size_mm=70.0)
    renderer = UltrasoundRenderer(PROBE, tgc_reach=1.0)  # else a guess gets its correlation from the dark far field
    geometry = PROBE.slice_geometry()
    poses = torch.stack([pose_from((0.0, 0.0, 0.0), (0.0, 0.0, z)) for z in np.linspace(-6, 6, 11)])
    with torch.no_grad():
        frames = renderer(medium, poses)
    mask = in_fan(PROBE, geometry.pixel_to_probe, geometry.rows, geometry.columns)
    return TrackedSweep.from_arrays(frames.numpy(), (poses @ geometry.pixel_to_probe).numpy(), mask=mask.numpy())


def polar(sweep, smoothing_mm=0.8):
    return polar_sweep(
        sweep, PROBE, PROBE.slice_geometry().pixel_to_probe, rays=48, samples=80, smoothing_mm=smoothing_mm
    )


def test_frames_along_rays_come_back_on_their_pixels(sweep):
    rows, columns = sweep.frames.shape[1:]
    wave = torch.sin(torch.arange(rows)[:, None] / 9) * torch.cos(torch.arange(columns) / 11)
    waves = replace(sweep, frames=(0.5 + 0.4 * wave).expand(len(sweep), -1, -1))
    views = polar(waves, smoothing_mm=0.0)
    inner = gaussian_blur(sweep.mask.float(), 2.0)[0] > 0.999
    error = views.in_frame(views.brightness, rows, columns) - waves.frames
    assert error[:, inner].abs().max() < 0.03
    assert torch.equal(views.inside[0], views.inside[-1])
    smoothed, speckled = polar(sweep, smoothing_mm=1.5), polar(sweep, smoothing_mm=0.0)
    assert smoothed.brightness[smoothed.inside].std() < speckled.brightness[speckled.inside].std()


def test_poses_lose_the_pixel_size_and_nothing_else(sweep):
    probe, _ = probe_of_sweep(sweep)
    assert probe.radius_mm == pytest.approx(PROBE.radius_mm, rel=0.1)
    exact = rigid_poses(sweep, PROBE.slice_geometry().pixel_to_probe)
    assert torch.allclose(exact[:, :3, :3], torch.eye(3, dtype=torch.float64).expand(11, 3, 3), atol=1e-9)
    assert exact[:, 2, 3].tolist() == pytest.approx(np.linspace(-6, 6, 11).tolist())
    assert exact[:, :2, 3].abs().max() < 1e-9
    with pytest.raises(InputError, match="not square"):
        stretched = sweep.image_to_reference.clone()
        stretched[:, :3, 0] *= 1.5
        probe_of_sweep(replace(sweep, image_to_reference=stretched))


def test_the_reconstruction_finds_bright_and_dark_scatterers(sweep):
    views = polar(sweep)
    grid = grid_around(views.points(slice(None)), 2.0, 2.0)
    run = VolumeReconstruction(views, grid, uniform_maps(grid, "white matter"), steps=30, smoothing_mm=0.8)
    states = list(run)
    assert [state.step for state in states] == list(range(1, 31))
    assert states[-1].loss < 0.3 * states[0].loss
    maps = run.maps()
    assert (maps[0] > 0).all()
    assert (maps[3] > 0).all()
    centres = grid.centres()

    def level(x):
        near = (centres - torch.tensor([x, 25.0, 0.0])).norm(dim=-1) < 4
        return 20 * maps[3][near].log10().mean().item()

    assert level(9.0) - level(0.0) > 4.0  # 8 dB in truth, beside what is smoothed
    assert level(-9.0) - level(0.0) < -6.0  # -16 dB


def test_the_same_seed_gives_the_same_volume(sweep):
    views = polar(sweep)
    grid = grid_around(views.points(slice(None)), 4.0)
    volumes = []
    for seed in (0, 0, 1):
        run = VolumeReconstruction(views, grid, uniform_maps(grid), steps=2, seed=seed, batch=3)
        list(run)
        volumes.append(run.maps())
    assert torch.equal(volumes[0], volumes[1])
    assert not torch.equal(volumes[0], volumes[2])


def test_held_out_frames_are_predicted_about_as_well_as_by_compounding(sweep):
    experiment = HeldOutExperiment(sweep, every=5, voxel_mm=2.5, steps=30)
    assert experiment.held.tolist() == [2, 7]
    list(experiment)
    scores = experiment.scores()
    means = {name: values.mean().item() for name, values in scores.smoothed.items()}
    assert means["reconstructed"] > means["start"] + 0.2
    assert means["reconstructed"] > means["compounded"] - 0.05
    assert means["compounded"] > 0.8
    assert (scores.frames["reconstructed"] < scores.smoothed["reconstructed"]).all()


def test_a_start_from_the_truth_already_predicts(sweep):
    medium = phantom(balls, size_mm=70.0)
    turned = pose_from((10.0, 20.0, 30.0), (5.0, -3.0, 8.0))
    moved = AcousticMedium(medium.maps, turned @ medium.ijk_to_ras)
    guesses = []
    for start, to_ras in ((moved, turned), (None, None)):
        experiment = HeldOutExperiment(sweep, start, to_ras, voxel_mm=2.0, steps=1)
        list(experiment)
        guesses.append(experiment.scores().smoothed["start"].mean().item())
    assert guesses[0] > 0.8
    assert guesses[0] > guesses[1] + 0.2
    with pytest.raises(InputError, match="outside of the volume"):
        HeldOutExperiment(sweep, moved, pose_from((0.0, 0.0, 0.0), (500.0, 0.0, 0.0)), voxel_mm=4.0)


def test_compounding_averages_fills_holes_and_slices_back(sweep):
    even = replace(sweep, frames=torch.full_like(sweep.frames, 0.4))
    grid = grid_around(polar(sweep).points(slice(None)), 2.0, 4.0)
    assert compound(even, grid).sub(0.4).abs().max() < 1e-4
    ramp = sweep.frames.clone()
    columns = torch.arange(ramp.shape[2]) / ramp.shape[2]
    ramp[:] = columns
    volume = compound(replace(sweep, frames=ramp), grid)
    again = resliced(volume, grid, sweep)
    inner = sweep.mask[0] & (columns > 0.3) & (columns < 0.7)
    assert (again - ramp)[:, inner].abs().max() < 0.02


def test_which_frames_are_held_out():
    kept, held = held_out_frames(20, 5)
    assert held.tolist() == [2, 7, 12, 17]
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(20))
    assert held_out_frames(22, 10, 4)[1].tolist() == [3, 4, 5, 6, 13, 14, 15, 16]
    assert held_out_frames(18, 10, 4)[1].tolist() == [3, 4, 5, 6, 13, 14, 15, 16]
    assert held_out_frames(15, 10, 4)[1].tolist() == [3, 4, 5, 6]  # nothing beyond the last frame kept
    for count, every, block in ((20, 5, 5), (2, 5, 1), (20, 1, 1)):
        with pytest.raises(InputError):
            held_out_frames(count, every, block)


def test_a_mediums_maps_are_carried_to_the_grid():
    medium = phantom(balls, size_mm=70.0)
    grid = grid_around(torch.tensor([[-20.0, 5.0, -20.0], [20.0, 45.0, 20.0]]), 2.0)
    maps = medium_on_grid(medium, grid, torch.eye(4, dtype=torch.float64))
    at = grid.centres().reshape(-1, 3)
    assert torch.allclose(maps.reshape(4, -1), medium.sample(at), atol=1e-5)
    with pytest.raises(InputError, match="larger voxels"):
        grid_around(torch.tensor([[0.0, 0.0, 0.0], [300.0, 300.0, 300.0]]), 0.1)


def test_the_command_writes_volumes_report_and_figure(sweep, tmp_path):
    pytest.importorskip("matplotlib")
    write_sweep(sweep, tmp_path / "sweep.igs.mha")
    options = {"sweep": tmp_path / "sweep.igs.mha", "voxel-mm": 3, "steps": 3}
    options |= {"output": tmp_path / "v.nrrd", "report": tmp_path / "r.json", "figure": tmp_path / "f.png"}
    done = run("study reconstruct", options)
    assert done.exit_code == 0, done.output
    volumes = {part: read_volume(tmp_path / f"v_{part}.nrrd") for part in ("impedance", "scattering", "compounded")}
    assert len({v.array.shape for v in volumes.values()}) == 1
    assert np.abs(volumes["impedance"].array - 1.628).max() < 0.1
    assert np.diag(volumes["compounded"].ijk_to_ras)[:3].tolist() == pytest.approx([3, 3, 3])
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["frames_held_out"] == 2
    assert [frame["frame"] for frame in report["frames"]] == [2, 7]
    assert (tmp_path / "f.png").stat().st_size > 5000


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--hold-out", "0", "--report", "r.json"), "--hold-out"),
        (("--initial", "t.tfm"), "give --volume too"),
        (("--report", "t.csv", "--tissues", "t.csv"), "would be overwritten"),
        (("--hold-out", "3", "--block", "3"), "choose fewer"),
    ],
)
def test_the_command_refuses_in_one_sentence(sweep, tmp_path, extra, words):
    write_sweep(sweep, tmp_path / "sweep.igs.mha")
    extra = [str(tmp_path / e) if e.endswith((".json", ".tfm", ".csv")) else e for e in extra]
    options = {"sweep": tmp_path / "sweep.igs.mha", "output": tmp_path / "v.nrrd"}
    done = run("study reconstruct", options, *extra)
    assert done.exit_code == 2
    assert words in done.output
    assert not list(tmp_path.glob("v_*"))
