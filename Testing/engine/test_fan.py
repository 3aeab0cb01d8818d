"""The fan estimated from pixels: drawn images with known geometry, and real sweeps."""

import json
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from diffus.errors import InputError
from diffus.probe import preset_names, probe_preset
from diffus.probe.fan import estimate_fan
from diffus.probe.fan_mask import fan_mask
from diffus.sweep.probe_sweep import fan_of_sweep
from diffus.sweep.sweep import TrackedSweep

MARGIN = 20


def draw(name):
    """A speckled uint8 fan on black with a margin: probe, image, (ray, sample) per pixel and pixel_to_probe."""
    probe = probe_preset(name)
    spacing = probe.slice_geometry().mm_per_pixel * 1.6  # 320 pixels
    geometry = replace(probe, mm_per_pixel=spacing).slice_geometry()
    pixel_to_probe = geometry.pixel_to_probe.clone()
    pixel_to_probe[:2, 3] -= MARGIN * spacing
    row, column = torch.meshgrid(
        torch.arange(geometry.rows + 2.0 * MARGIN), torch.arange(geometry.columns + 2.0 * MARGIN), indexing="ij"
    )
    xy = torch.stack([column, row], -1).double() * spacing + pixel_to_probe[:2, 3]
    ray, sample = probe.polar_coordinates(xy).numpy().transpose(2, 0, 1) / [[[probe.rays - 1]], [[probe.samples - 1]]]
    inside = (ray >= 0) & (ray <= 1) & (sample >= 0) & (sample <= 1)
    echo = 10 + 80 * np.random.default_rng(1).rayleigh(size=inside.shape) * np.exp(-2 * np.clip(sample, 0, 1))
    image = np.where(inside, echo.clip(1, 255), 0).astype(np.uint8)
    return probe, image, ray, sample, pixel_to_probe, spacing


def errors_px(fan, probe, pixel_to_probe, spacing):
    """Largest distance, in pixels, between the corners and middles of the found and the true outline."""
    worst = 0.0
    middle = len(probe.outline(5)) // 2
    for corner in (0, middle - 1, middle, -1):
        found = fan.probe.outline(5)[corner] - fan.pixel_to_probe[:2, 3]
        true = probe.outline(5)[corner] - pixel_to_probe[:2, 3]
        worst = max(worst, ((found - true).norm() / spacing).item())
    return worst


@pytest.mark.parametrize("name", preset_names())
def test_drawn_fans_are_found_to_a_pixel(name):
    probe, image, _, _, pixel_to_probe, spacing = draw(name)
    fan = estimate_fan(image, spacing, frequency_mhz=6.5)
    assert fan.probe.type == probe.type
    assert errors_px(fan, probe, pixel_to_probe, spacing) < 1.0
    assert fan.probe.frequency_mhz == 6.5
    assert fan.probe.mm_per_pixel == spacing
    assert fan.residual_mm < 0.5 * spacing
    assert fan.coverage > 0.98
    assert fan.mask.shape == image.shape
    assert (fan.mask.numpy() != (image > 0)).mean() < 0.01


@pytest.mark.parametrize("name", ["craniotomy-convex", "phased", "endocavity"])
def test_shadows_and_annotations_do_not_move_the_fan(name):
    probe, image, ray, sample, pixel_to_probe, spacing = draw(name)
    image[ray < 0.3] = 0  # no contact on the left third
    image[(ray > 0.6) & (ray < 0.7) & (sample > 0.3)] = 0
    image[4:12, 4:60] = 200  # text
    image[::15, -5:] = 255  # ruler
    fan = estimate_fan(image, spacing)
    assert fan.probe.type == probe.type
    assert errors_px(fan, probe, pixel_to_probe, spacing) < 1.5
    mask = fan_mask(image)
    assert not mask[4:12, 4:40].any()
    assert not mask[:, -5:].any()


@pytest.mark.parametrize("name", ["craniotomy-convex", "abdominal-convex", "endocavity"])
def test_fans_that_the_image_cuts_off_at_the_sides(name):
    probe, image, _, _, pixel_to_probe, spacing = draw(name)
    pixel_to_probe[0, 3] += 45 * spacing
    fan = estimate_fan(image[:, 45:-35], spacing)
    assert errors_px(fan, probe, pixel_to_probe, spacing) < 1.5


@pytest.mark.parametrize("name", ["craniotomy-convex", "abdominal-convex", "phased"])
def test_a_bottom_arc_of_which_only_the_ends_show(name):
    probe, image, _, _, pixel_to_probe, spacing = draw(name)
    fan = estimate_fan(image[: -MARGIN - 20], spacing)
    assert errors_px(fan, probe, pixel_to_probe, spacing) < 1.5


def test_what_lies_below_the_image_is_not_in_the_fan():
    probe, image, _, _, _, spacing = draw("linear")
    rows = image.shape[0] - MARGIN - 80
    fan = estimate_fan(image[:rows], spacing)
    assert fan.probe.width_mm == pytest.approx(probe.width_mm, abs=1.5 * spacing)
    assert fan.probe.depth_mm == pytest.approx((rows - MARGIN) * spacing, abs=1.5 * spacing)


def test_right_is_the_marked_side_and_the_face_is_the_origin():
    probe, image, ray, sample, _, spacing = draw("linear")
    fan = estimate_fan(image, spacing)
    row, column = np.argwhere((abs(ray - 0.9) < 0.01) & (abs(sample - 0.5) < 0.01)).mean(0)
    point = fan.pixel_to_probe @ torch.tensor([column, row, 0.0, 1.0], dtype=torch.float64)
    assert point[0].item() == pytest.approx(0.4 * probe.width_mm, abs=2 * spacing)
    assert point[1].item() == pytest.approx(0.5 * probe.depth_mm, abs=2 * spacing)


def test_a_stack_of_frames_shows_what_single_frames_leave_black():
    probe, image, _, sample, pixel_to_probe, spacing = draw("abdominal-convex")
    shallow, deep = image.copy(), image.copy()
    shallow[sample > 0.6] = 0
    deep[sample < 0.5] = 0
    fan = estimate_fan(np.stack([shallow, deep]), spacing)
    assert errors_px(fan, probe, pixel_to_probe, spacing) < 1.0
    assert estimate_fan(shallow, spacing).probe.depth_mm == pytest.approx(0.6 * probe.depth_mm, abs=2 * spacing)


@pytest.mark.parametrize("name", preset_names())
def test_a_black_far_third_leaves_the_depth_uncertain(name):
    """It came out a third too short, and nothing said so; only whoever knows the depth can tell."""
    probe, image, _, sample, pixel_to_probe, spacing = draw(name)
    assert estimate_fan(image, spacing).depth_certain
    image[sample > 2 / 3] = 0
    fan = estimate_fan(image, spacing)
    assert fan.probe.depth_mm == pytest.approx(2 / 3 * probe.depth_mm, abs=2 * spacing)
    assert not fan.depth_certain
    known = estimate_fan(image, spacing, depth_mm=probe.depth_mm)
    assert known.depth_certain
    assert known.probe.depth_mm == probe.depth_mm
    assert errors_px(known, probe, pixel_to_probe, spacing) < 1.5
    assert (known.mask.numpy() != (sample >= 0) & (sample <= 1) & fan_mask(draw(name)[1]).numpy()).mean() < 0.02


def test_a_far_field_that_fades_leaves_the_depth_uncertain_and_every_frame_counts():
    probe, image, _, sample, _, spacing = draw("craniotomy-convex")
    rng = np.random.default_rng(2)
    frames = np.stack([image * rng.rayleigh(size=image.shape) for _ in range(40)])
    frames = (frames * np.exp(-6 * np.clip(sample, 0, 1))).clip(0, 255).astype(np.uint8)
    faded = estimate_fan(frames, spacing)
    assert faded.probe.depth_mm < 0.9 * probe.depth_mm
    assert not faded.depth_certain
    # The one frame that shows the far field is none of every second, third, ...
    frames[37] = image
    sweep = TrackedSweep.from_arrays(frames, np.tile(np.diag([spacing, spacing, spacing, 1.0]), (40, 1, 1)))
    fan = fan_of_sweep(sweep)
    assert fan.probe.depth_mm == pytest.approx(probe.depth_mm, abs=2 * spacing)
    assert fan.depth_certain
    assert fan_of_sweep(sweep, depth_mm=70.0).probe.depth_mm == 70.0


def test_torch_images_and_other_grey_scales_give_the_same_fan():
    _, image, _, _, _, spacing = draw("phased")
    expected = estimate_fan(image, spacing).probe
    assert estimate_fan(torch.from_numpy(image), spacing).probe == expected
    assert estimate_fan(image / 255.0 - 3.0, spacing).probe == expected
    assert estimate_fan(image.astype(np.int16) * 100, spacing).probe == expected


def disc(size=200):
    row, column = np.indices((size, size)) - size / 2
    return 100 * ((row / 0.8) ** 2 + column**2 < (0.4 * size) ** 2)


NO_FAN = {
    "black": np.zeros((100, 100), np.uint8),
    "white": np.full((100, 100), 255, np.uint8),
    "noise": np.random.default_rng(0).integers(0, 256, (200, 200)),
    "counts": np.random.default_rng(0).poisson(1.0, (200, 200)),
    "ramp": np.tile(np.arange(200.0), (200, 1)),
    "ellipse": disc(),
    "dots": np.random.default_rng(0).random((200, 200)) > 0.99,
    "nan": np.full((100, 100), np.nan),
    "small": np.ones((10, 10)),
    "colour": np.ones((100, 100, 3)),
    "one dimension": np.ones(100),
    "no frames": np.ones((0, 100, 100)),
}


@pytest.mark.parametrize("image", NO_FAN.values(), ids=NO_FAN.keys())
@pytest.mark.bad_input
def test_images_without_a_fan_are_refused_in_one_sentence(image):
    with pytest.raises(InputError) as error:
        estimate_fan(image, 0.3)
    assert str(error.value).endswith(".")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("spacing", [0.0, -1.0, float("nan"), "0.3", None])
@pytest.mark.bad_input
def test_the_pixel_size_must_be_a_length(spacing):
    with pytest.raises(InputError, match="mm_per_pixel"):
        estimate_fan(draw("linear")[1], spacing)


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_mask_of_a_frame_without_border_is_everything():
    assert fan_mask(NO_FAN["noise"]).all()


def test_real_convex_sweep(shared_data):
    """The sweep's own record of its fan; the record's far radius is 9 pixels short of where the echoes end (733)."""
    frames = read(shared_data / "us_tracked" / "liver_us_sweep.igs.mha")
    truth = json.loads((shared_data / "us_tracked" / "liver_us_sweep_poses.json").read_text())["fan"]
    for images, tolerance_px in ((frames, 1.0), (frames[0], 2.0), (frames[70], 2.0)):
        fan = estimate_fan(images, 0.315)
        assert fan.probe.type == "convex"
        face = -fan.pixel_to_probe[:2, 3] / 0.315
        assert face.tolist() == pytest.approx(truth["arc_top_px"], abs=tolerance_px)
        assert fan.probe.radius_mm / 0.315 == pytest.approx(truth["short_radius_px"], abs=tolerance_px)
        assert fan.probe.fov_deg / 2 == pytest.approx(truth["opening_half_angle_deg"], abs=0.25)
        assert (fan.probe.radius_mm + fan.probe.depth_mm) / 0.315 == pytest.approx(733.3, abs=2 * tolerance_px)


@pytest.mark.parametrize("case", ["colin27_101", "colin27_103", "colin27_106", "mni152_112"])
def test_simulated_brain_sweeps(shared_data, case):
    folder = shared_data / "ius_benchmark"
    truth = json.loads((folder / f"{case}.truth.json").read_text())
    spacing = truth["spacing_mm"]
    fan = estimate_fan(read(folder / f"{case}.igs.mha"), spacing)
    assert fan.probe.type == "convex"
    assert fan.probe.radius_mm == pytest.approx(truth["probe"]["radius_mm"], abs=0.5 * spacing)
    assert fan.probe.depth_mm == pytest.approx(truth["probe"]["depth_mm"], abs=0.5 * spacing)
    assert fan.probe.fov_deg == pytest.approx(truth["probe"]["fov_deg"], abs=0.1)


@pytest.mark.parametrize(
    ("name", "columns", "rows"),
    [("plus_SpinePhantomFreehand", (187, 631), (12, 601)), ("plus_BoneUltrasound_L14", (176, 642), (1, 614))],
)
def test_real_linear_sweeps(shared_data, name, columns, rows):
    """First and last column and row that are not black, read off the images."""
    frames = read(shared_data / "us_tracked" / f"{name}.igs.mha")
    for images in (frames, frames[0]):
        fan = estimate_fan(images, 0.1)
        assert fan.probe.type == "linear"
        left_top = -fan.pixel_to_probe[:2, 3] / 0.1 + torch.tensor([-fan.probe.width_mm / 0.2, 0.0])
        assert left_top.tolist() == pytest.approx([columns[0], rows[0]], abs=1.0)
        assert fan.probe.width_mm / 0.1 == pytest.approx(columns[1] - columns[0], abs=2.0)
        assert fan.probe.depth_mm / 0.1 == pytest.approx(rows[1] - rows[0], abs=2.0)


def test_wires_in_water_show_no_fan(shared_data):
    frames = read(shared_data / "us_tracked" / "plus_fCal_Test_Calibration_3NWires_fCal2.0.igs.mha")
    for images in (frames, frames[0]):
        with pytest.raises(InputError, match="No ultrasound fan"):
            estimate_fan(images, 0.1)
