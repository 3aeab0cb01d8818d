"""Probe geometry, presets and probe files."""

import json
import math
from dataclasses import replace

import pytest
import torch
from diffus.errors import InputError
from diffus.probe import (
    ConvexProbe,
    LinearProbe,
    PhasedProbe,
    preset_names,
    preset_source,
    probe_from_dict,
    probe_preset,
    probe_to_dict,
    read_probe_json,
    write_probe_json,
)
from diffus.probe.probe import FACE_FRACTION

BEAM = {"frequency_mhz": 5.0, "depth_mm": 100.0, "focus_mm": 50.0}
CONVEX = ConvexProbe(60.0, 60.0, rays=3, samples=11, **BEAM)
PHASED = PhasedProbe(90.0, rays=3, samples=11, **BEAM)
LINEAR = LinearProbe(40.0, rays=3, samples=11, **BEAM)


def close(actual, expected, tolerance=1e-9):
    return torch.allclose(actual, torch.as_tensor(expected, dtype=actual.dtype), atol=tolerance, rtol=0)


def test_points_of_a_tilted_convex_ray():
    # Apex 60 mm behind the face; the last ray leans 30 degrees towards the marked side (x > 0).
    points, weights = CONVEX.sample_points()
    assert points.shape == (1, 3, 11, 3)
    assert weights.tolist() == [1.0]
    assert close(points[0, 2, 0], [30.0, 60 * (math.sqrt(0.75) - 1), 0.0])
    assert close(points[0, 2, 10], [80.0, 160 * math.sqrt(0.75) - 60, 0.0])
    assert close(points[0, 1, 5], [0.0, 50.0, 0.0])
    assert close(points[0, 0, 10], [-80.0, 160 * math.sqrt(0.75) - 60, 0.0])


def test_points_of_phased_and_linear_rays():
    phased = PHASED.sample_points()[0][0]
    assert close(phased[:, 0], torch.zeros(3, 3))
    assert close(phased[2, 10], [100 * math.sqrt(0.5), 100 * math.sqrt(0.5), 0.0])
    linear = LINEAR.sample_points()[0][0]
    assert close(linear[:, 0], [[-20.0, 0, 0], [0, 0, 0], [20, 0, 0]])
    assert close(linear[2, 3], [20.0, 30.0, 0.0])


@pytest.mark.parametrize("probe", [CONVEX, PHASED, LINEAR], ids=lambda probe: probe.type)
def test_rays_start_at_the_face_with_unit_directions_and_even_samples(probe):
    origins, directions = probe.ray_geometry()
    points = probe.sample_points()[0][0]
    assert close(directions.norm(dim=-1), torch.ones(3))
    assert close(points[:, 0], origins)
    assert close((points[:, 1:] - points[:, :-1]).norm(dim=-1), torch.full((3, 10), 10.0))
    assert probe.sample_spacing_mm == 10.0
    assert close(probe.depths_mm()[-1], 100.0)


@pytest.mark.parametrize("name", preset_names())
def test_polar_coordinates_invert_the_sample_points(name):
    probe = replace(probe_preset(name), rays=17, samples=33)
    points = probe.sample_points()[0][0, ..., :2]
    polar = probe.polar_coordinates(points)
    ray, sample = torch.meshgrid(torch.arange(17.0), torch.arange(33.0), indexing="ij")
    first = 1 if probe.type == "phased" else 0  # all rays of a phased array meet in its first sample
    assert close(polar[:, first:, 0], ray[:, first:].double(), 1e-8)
    assert close(polar[..., 1], sample.double(), 1e-8)


@pytest.mark.parametrize("probe", [CONVEX, PHASED, LINEAR], ids=lambda probe: probe.type)
def test_points_outside_of_the_fan_have_indices_outside(probe):
    edge = 200.0
    outside = torch.tensor([[edge, 50.0], [-edge, 50.0], [0.0, 101.0], [0.0, -1.0], [0.0, -500.0]], dtype=torch.float64)
    ray, sample = probe.polar_coordinates(outside).unbind(-1)
    assert ((ray < 0) | (ray > probe.rays - 1) | (sample < 0) | (sample > probe.samples - 1)).all()
    assert ray[0] > probe.rays - 1  # x > 0 is the side of the last ray
    assert ray[1] < 0


@pytest.mark.parametrize("name", preset_names())
def test_lateral_spacing_is_the_distance_between_neighbours(name):
    probe = replace(probe_preset(name), rays=801, samples=21)
    points = probe.sample_points()[0][0]
    chord = (points[1:] - points[:-1]).norm(dim=-1)
    assert torch.allclose(probe.lateral_spacing_mm().expand_as(chord), chord, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("name", preset_names())
def test_slice_holds_the_whole_fan_and_maps_pixels_to_millimetres(name):
    probe = probe_preset(name)
    slice_ = probe.slice_geometry()
    assert max(slice_.rows, slice_.columns) == 512
    probe_to_pixel = torch.linalg.inv(slice_.pixel_to_probe)
    outline = probe.outline()
    points = torch.cat([outline, torch.zeros(len(outline), 1), torch.ones(len(outline), 1)], 1)
    column, row = (points @ probe_to_pixel.T)[:, :2].unbind(-1)
    assert column.min() > -1e-6
    assert column.max() < slice_.columns - 1 + 1e-6
    assert row.min() > -1e-6
    assert row.max() < slice_.rows - 1 + 1e-6
    # Tight: the fan reaches to within a pixel of every side.
    assert max(column.min(), row.min()) < 1
    assert column.max() > slice_.columns - 2
    assert row.max() > slice_.rows - 2


def test_pixel_of_a_slice_of_given_spacing():
    slice_ = replace(CONVEX, mm_per_pixel=0.5).slice_geometry()
    assert slice_.mm_per_pixel == 0.5
    assert slice_.columns == 321  # 160 mm between the bottom corners
    # The middle column is the axis; the top row is that of the face's corners, 8.04 mm above its centre.
    pixel = torch.tensor([160 + 20.0, 116.0, 0.0, 1.0], dtype=torch.float64)
    top = 60 * (1 - math.sqrt(0.75))
    assert close(slice_.pixel_to_probe @ pixel, [10.0, 58.0 - top, 0.0, 1.0])
    centres = slice_.pixel_centres()
    assert centres.shape == (slice_.rows, 321, 2)
    assert close(centres[116, 180], [10.0, 58.0 - top])


def test_a_slice_has_the_longer_side_where_the_fan_is_longer():
    deep = LINEAR.slice_geometry()
    assert deep.rows == 512
    assert deep.columns == round(511 * 0.4) + 2  # 40 mm of 100 mm, rounded up to whole pixels


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_elevation_layers_have_the_variance_of_the_beam(layers):
    probe = replace(CONVEX, elevation_layers=layers, elevation_mm=4.0)
    points, weights = probe.sample_points()
    z = points[..., 2]
    assert points.shape[0] == weights.shape[0] == layers
    assert close(weights.sum(), 1.0)
    assert close((weights[:, None, None] * z).sum(0), torch.zeros(3, 11))
    # A Gaussian of 4 mm full width at half maximum has the standard deviation 1.69864 mm; so at the focus, sample 5.
    variance = (weights[:, None, None] * z**2).sum(0)
    assert close(variance[:, 5], torch.full((3,), 1.69864**2), 1e-4)
    assert close(variance, probe.beam.elevation_sigma_mm(probe.depths_mm()).square().expand(3, 11), 1e-4)


def test_sub_rays_are_seeded_and_fill_the_gaps_between_rays():
    probe = replace(CONVEX, rays=301, rays_per_line=40, elevation_mm=2.0)
    plain = replace(probe, rays_per_line=1).sample_points()[0]
    points, weights = probe.sample_points(seed=3)
    assert close(weights, torch.full((40,), 1 / 40))
    assert torch.equal(points[:1], plain)
    assert torch.equal(points, probe.sample_points(seed=3)[0])
    assert not torch.equal(points, probe.sample_points(seed=4)[0])
    aside = probe.polar_coordinates(points[1:, ..., :2]) - probe.polar_coordinates(plain[..., :2])
    assert aside[..., 0].abs().max() <= 0.5 + 1e-9
    assert aside[..., 0].std() == pytest.approx(12**-0.5, rel=0.05)
    assert aside[..., 1].abs().max() < 1e-9  # across, not along
    shift = points[1:, ..., 2]
    assert close(shift[:, :, 0], shift[:, :, -1], 1e-9)  # whole rays are shifted
    assert shift[:, :, 5].std() == pytest.approx(2.0 / 2.35482, rel=0.05)  # at the focus


def test_jitter_only_fills_the_gaps_between_layers():
    probe = replace(CONVEX, rays_per_line=20, elevation_layers=4, elevation_mm=2.0)
    points, weights = probe.sample_points()
    assert points.shape[0] == 80
    assert close(weights.sum(), 1.0)
    centres = replace(probe, rays_per_line=1).sample_points()[0].repeat_interleave(20, 0)
    assert (points - centres)[:, :, 5, 2].std() < 2.0 / 2.35 / 3


def test_acquisition_parameters_may_be_tensors():
    frequency = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)
    probe = replace(CONVEX, frequency_mhz=frequency, f_number=torch.tensor(2.0), rays_per_line=2)
    assert probe.wavelength_mm.item() == pytest.approx(0.308)
    (slope,) = torch.autograd.grad(probe.wavelength_mm, frequency)
    assert slope.item() == pytest.approx(-1.54 / 25)
    assert torch.isfinite(probe.sample_points()[0]).all()
    assert probe_to_dict(probe)["frequency_mhz"] == 5.0


@pytest.mark.parametrize(
    "change",
    [
        {"depth_mm": 0.0},
        {"depth_mm": 401.0},
        {"depth_mm": math.nan},
        {"depth_mm": "70"},
        {"depth_mm": True},
        {"depth_mm": torch.tensor(70.0)},
        {"frequency_mhz": 0.1},
        {"frequency_mhz": 41.0},
        {"frequency_mhz": torch.tensor([5.0, 6.0])},
        {"focus_mm": -1.0},
        {"f_number": 0.0},
        {"cycles": math.inf},
        {"elevation_mm": 0.0},
        {"rays": 1},
        {"rays": 2.5},
        {"samples": 4},
        {"elevation_layers": 0},
        {"rays_per_line": 0},
        {"mm_per_pixel": 0.0},
        {"mm_per_pixel": 0.006},
        {"radius_mm": 0.0},
        {"fov_deg": 181.0},
        {"fov_deg": 0.5},
        {"fov_deg": None},
    ],
    ids=str,
)
def test_values_out_of_range_are_refused_in_one_sentence(change):
    with pytest.raises(InputError) as error:
        replace(CONVEX, **change)
    message = str(error.value)
    assert next(iter(change)) in message
    assert message.endswith(".")
    assert "\n" not in message


def test_width_out_of_range_is_refused():
    with pytest.raises(InputError, match=r"width_mm is 500; choose 1 to 400 mm\."):
        replace(LINEAR, width_mm=500.0)


def test_presets_cover_the_three_types_and_say_where_they_come_from():
    names = preset_names()
    assert len(names) >= 5
    assert "craniotomy-convex" in names
    assert {probe_preset(name).type for name in names} == {"convex", "linear", "phased"}
    assert all(len(preset_source(name)) > 40 for name in names)
    with pytest.raises(InputError, match="craniotomy-convex"):
        probe_preset("no-such-probe")


@pytest.mark.parametrize("name", preset_names())
def test_probe_files_round_trip(name, tmp_path):
    probe = replace(probe_preset(name), mm_per_pixel=0.25, rays=100, cycles=1.5)
    write_probe_json(probe, tmp_path / "probe.json")
    assert read_probe_json(tmp_path / "probe.json") == probe
    shape = {"linear": {"width_mm"}, "phased": {"fov_deg"}, "convex": {"radius_mm", "fov_deg"}}[probe.type]
    common = {"type", "frequency_mhz", "depth_mm", "focus_mm", "f_number", "rays", "samples", "elevation_layers"}
    common |= {"rays_per_line", "mm_per_pixel", "transmit_f_number", "cycles", "elevation_mm"}
    common |= {"aperture_mm", "elevation_focus_mm"}
    assert set(json.loads((tmp_path / "probe.json").read_text())) == common | shape


def test_a_short_specification_gets_the_defaults():
    short = {"type": "convex", "frequency_mhz": 5, "depth_mm": 100, "focus_mm": 50, "radius_mm": 60, "fov_deg": 60}
    assert probe_from_dict(short) == ConvexProbe(60, 60, **BEAM)
    assert probe_from_dict({**short, "mm_per_pixel": None}).mm_per_pixel is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"colour": "blue"}, "Unknown probe keys colour.*frequency_mhz"),
        ({"width_mm": 40}, "convex probe has no width_mm.*radius_mm"),
        ({"type": "annular"}, "'annular'.*convex, linear, phased"),
        ({"type": ["convex"]}, "choose one of convex"),
        ({"depth_mm": "deep"}, "depth_mm must be a number"),
        ({"rays": 1}, "rays is 1"),
        ({"rays": None}, "rays must be a whole number"),
    ],
)
def test_wrong_specifications_are_refused(change, words):
    with pytest.raises(InputError, match=words):
        probe_from_dict({**probe_to_dict(CONVEX), **change})


def test_a_missing_key_is_named():
    specification = probe_to_dict(CONVEX)
    del specification["radius_mm"]
    with pytest.raises(InputError, match="radius_mm"):
        probe_from_dict(specification)


@pytest.mark.parametrize(
    ("text", "words"),
    [("{", "not valid JSON"), ("[1]", "JSON object"), ('{"type": 3}', "type is 3"), (b"\xff", "JSON")],
)
def test_unreadable_probe_files_are_refused(text, words, tmp_path):
    path = tmp_path / "probe.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        read_probe_json(path)


def test_missing_files_and_folders_are_named(tmp_path):
    with pytest.raises(InputError, match=r"none\.json cannot be read"):
        read_probe_json(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be written"):
        write_probe_json(CONVEX, tmp_path / "no" / "folder.json")


def fwhm_mm(probe, depth_mm: float) -> float:
    return 2.35482 * probe.beam.lateral_sigma_mm(torch.tensor([depth_mm], dtype=torch.float64)).item()


@pytest.mark.parametrize("probe", [CONVEX, PHASED, LINEAR])
def test_the_array_ends_the_dynamic_aperture(probe):
    """Below the depth that the aperture serves at the wanted f-number, texture is as wide as an angle."""
    narrow = replace(probe, depth_mm=300.0, aperture_mm=10.0)
    shallow, deep, deeper = (fwhm_mm(narrow, depth) for depth in (15.0, 200.0, 300.0))
    assert shallow == pytest.approx(fwhm_mm(replace(probe, aperture_mm=40.0), 15.0), rel=0.03)
    assert deep > 2.5 * shallow
    assert deeper / 300 == pytest.approx(deep / 200, rel=0.05)
    assert fwhm_mm(replace(narrow, aperture_mm=30.0), 200.0) < 0.6 * deep


def test_the_transmit_focus_is_no_sharper_than_the_array_allows():
    sharp = replace(LINEAR, aperture_mm=10.0, transmit_f_number=1.0).beam
    allowed = replace(LINEAR, aperture_mm=10.0, transmit_f_number=5.0).beam
    depth = torch.tensor([20.0, 50.0, 80.0], dtype=torch.float64)
    assert close(sharp.transmit_sigma_mm(depth), allowed.transmit_sigma_mm(depth))


def test_the_aperture_of_a_probe_is_at_most_its_face():
    assert LINEAR.largest_aperture_mm == pytest.approx(64 * 0.308)
    assert replace(LINEAR, width_mm=12.0).largest_aperture_mm == 12.0
    chord = 2 * 5 * math.sin(math.pi / 4)
    assert ConvexProbe(5.0, 90.0, **BEAM).largest_aperture_mm == pytest.approx(FACE_FRACTION * chord)
    assert PHASED.largest_aperture_mm == pytest.approx(32 * 0.308)
    assert replace(LINEAR, aperture_mm=31.0).largest_aperture_mm == 31.0


def test_the_slice_is_thinnest_where_the_lens_focuses():
    probe = replace(LINEAR, elevation_mm=2.0, elevation_focus_mm=30.0)
    depth = torch.tensor([0.0, 15.0, 30.0, 45.0, 90.0], dtype=torch.float64)
    thickness = 2.35482 * probe.beam.elevation_sigma_mm(depth)
    assert thickness[2] == pytest.approx(2.0, rel=1e-4)
    assert close(thickness[1], thickness[3])
    # Far from the focus a beam widens by its angle: the one-way waist's, lambda / (2 pi sigma).
    waist = 2.0 / 2.35482
    slope = waist * 0.308 / (2 * math.pi * 2 * waist**2) * 2.35482
    assert thickness[4] == pytest.approx(math.hypot(2.0, 60 * slope), rel=0.01)
    assert replace(LINEAR, elevation_mm=2.0).beam.elevation_sigma_mm(depth).argmin() == 3  # at the transmit focus


def test_the_beam_gathers_most_at_its_focus():
    depth = torch.linspace(5.0, 150.0, 146, dtype=torch.float64)
    gain = replace(LINEAR, depth_mm=150.0, focus_mm=50.0).beam.gain_db(depth)
    assert 40 < depth[gain.argmax()] <= 50
    assert gain[45] == pytest.approx(0.0, abs=1e-9)
    assert gain[0] < -3
    assert gain[-1] < -3
