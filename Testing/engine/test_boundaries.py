"""Losses at boundaries, walls by their angle, thin bright sheets and gas: the same at every sampling."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffus.medium import AcousticMedium
from diffus.probe import probe_preset
from diffus.render.echo import boundaries, transmission
from diffus.render.rays import ray_echoes
from diffus.render.renderer import UltrasoundRenderer
from diffus.render.specular import SHEET_FWHM_MM, sheet_shape, wall_slopes
from support.phantoms import phantom, probe_of

AT_FACE = torch.eye(4, dtype=torch.float64)
TISSUE = 1.6
PLATES = {"metal": 27.1, "bone": 6.707, "lung": 0.374, "air": 0.0004}
SAMPLINGS = (100, 200, 400, 800, 1600, 3200)
QUIET = {"attenuation": False, "clutter_db": None, "gain_db": 0.0, "noise_db": None, "dynamic_range_db": 160.0}
NO_GAS = {"a_line_db": -160.0, "dirty_shadow_db": -160.0}


def sharp_loss_db(impedance: float, sides: int = 2) -> float:
    r = (impedance - TISSUE) / (impedance + TISSUE)
    return sides * 10 * math.log10((1 - r * r) ** 2)


def plate_on_a_ray(impedance: float, samples: int, ramp_mm: float, thick_mm: float, dtype=torch.float32):
    """Impedance of a ray of 100 mm with a plate from 30 mm on, whose faces are spread over ramp_mm."""
    depth = torch.linspace(0, 100, samples, dtype=torch.float64)
    front = ((depth - 30) / ramp_mm + 0.5).clamp(0, 1)
    back = ((30 + thick_mm - depth) / ramp_mm + 0.5).clamp(0, 1)
    return (TISSUE + (impedance - TISSUE) * front * back)[None].to(dtype), 100 / (samples - 1)


@pytest.mark.parametrize("material", PLATES)
@pytest.mark.parametrize("ramp_mm", [1e-6, 0.3, 1.0, 2.0])
@pytest.mark.parametrize("thick_mm", [5.0, 10.0, math.inf])
def test_a_plate_loses_what_a_sharp_one_does_at_every_sampling(material, ramp_mm, thick_mm):
    expected = sharp_loss_db(PLATES[material], 2 if math.isfinite(thick_mm) else 1)
    for samples in SAMPLINGS:
        z, spacing = plate_on_a_ray(PLATES[material], samples, ramp_mm, thick_mm, torch.float64)
        behind = transmission(z, None, spacing).transmission[0, round(0.6 * (samples - 1))].item()
        assert 20 * math.log10(behind) == pytest.approx(expected, abs=0.1), samples


@pytest.mark.parametrize("material", PLATES)
def test_a_spread_boundary_echoes_as_a_sharp_one(material):
    r = (PLATES[material] - TISSUE) / (PLATES[material] + TISSUE)
    for samples in SAMPLINGS:
        z, spacing = plate_on_a_ray(PLATES[material], samples, 1.0, math.inf)
        assert transmission(z, None, spacing).reflection.sum().item() == pytest.approx(r, abs=1e-3)


def test_blurred_plates_stay_within_the_tolerance():
    """A Gaussian of 0.7 mm reaches further than what counts as one boundary."""
    for material in ("metal", "bone", "lung"):
        for samples in SAMPLINGS:
            depth = torch.linspace(0, 100, samples, dtype=torch.float64)
            part = 0.5 * (torch.erf((depth - 30) / (0.7 * 2**0.5)) + torch.erf((37 - depth) / (0.7 * 2**0.5)))
            z = (TISSUE + (PLATES[material] - TISSUE) * part)[None]
            behind = transmission(z, None, 100 / (samples - 1)).transmission[0, -1].item()
            assert 20 * math.log10(behind) == pytest.approx(sharp_loss_db(PLATES[material]), abs=0.5)


def test_layers_of_soft_tissue_lose_nothing_to_speak_of():
    """Noise of a volume's voxels must not count as boundaries."""
    generator = torch.Generator().manual_seed(0)
    voxels = 1.6 * (1 + 0.01 * torch.randn(1, 1, 101, generator=generator, dtype=torch.float64))
    for samples in SAMPLINGS:
        z = torch.nn.functional.interpolate(voxels, size=samples, mode="linear", align_corners=True)[0]
        assert 20 * torch.log10(transmission(z, None, 100 / (samples - 1)).transmission[0, -1]) > -0.2


def test_boundaries_within_one_sample_are_the_plain_ones():
    z = torch.tensor([[1.6, 1.6, 1.7, 1.7, 1.7, 1.7, 6.7, 6.7, 6.7, 1.6, 1.6]], dtype=torch.float64)
    reflection, crossing = boundaries(z, 10.0)
    r = torch.nn.functional.pad((z[:, 1:] - z[:, :-1]) / (z[:, 1:] + z[:, :-1]), (1, 0))
    torch.testing.assert_close(reflection, r)
    torch.testing.assert_close(crossing, torch.log1p(-r * r))


def delivered(renderer, medium):
    """Echo power of the slice, without gain, (rows, columns)."""
    image = renderer(medium, AT_FACE)[0].double()
    return 10 ** ((image - 0.6) * 16)


@pytest.mark.parametrize("material", ["metal", "bone", "lung"])
def test_speckle_behind_a_plate_of_the_delivered_slice(material):
    def plate(maps, x, y, z):
        maps[0][(y > 14) & (y < 21)] = PLATES[material]

    levels = []
    for samples in SAMPLINGS:
        probe = probe_of("linear", samples=samples, depth_mm=60.0, mm_per_pixel=0.25)
        power = {}
        for name, medium in (("with", phantom(plate)), ("without", phantom())):
            frames = [delivered(UltrasoundRenderer(probe, **QUIET, **NO_GAS, seed=s), medium) for s in range(2)]
            power[name] = sum(frame[120:220].mean() for frame in frames)
        levels.append(10 * math.log10(power["with"] / power["without"]))
    assert levels == pytest.approx([sharp_loss_db(PLATES[material])] * len(SAMPLINGS), abs=0.3)


class Wall(AcousticMedium):
    """Two half spaces, or one sheet in tissue, whose normal is tilted in the image plane and out of it."""

    dtype, device = torch.float32, torch.device("cpu")

    def __init__(self, tilt_deg=0.0, out_deg=0.0, depth_mm=30.0, sheet=None, voxel_mm=None, signed=False):
        tilt, out = math.radians(tilt_deg), math.radians(out_deg)
        self.normal = torch.tensor([math.sin(tilt), math.cos(tilt), math.tan(out)], dtype=torch.float64)
        self.normal /= self.normal.norm()
        self.depth_mm, self.sheet, self.voxel_mm, self.signed = depth_mm, sheet, voxel_mm, signed

    def contains(self, points):
        return torch.ones(points.shape[:-1], dtype=torch.bool)

    def distance(self, points):
        signed = points @ self.normal.to(points) - self.depth_mm * float(self.normal[1])
        return (signed if self.signed else signed.abs()).clamp(-5, 5)

    def sampled_distance(self, points):
        """Trilinear between the voxels, as a medium has it."""
        if self.voxel_mm is None:
            return self.distance(points)
        first = (points / self.voxel_mm).floor()
        fraction = points / self.voxel_mm - first
        total = torch.zeros(points.shape[:-1])
        for corner in torch.cartesian_prod(*[torch.tensor([0.0, 1.0])] * 3):
            weight = torch.where(corner > 0, fraction, 1 - fraction).prod(-1)
            total = total + weight * self.distance((first + corner) * self.voxel_mm)
        return total

    def sample(self, points):
        one = torch.ones(points.shape[:-1], dtype=points.dtype)
        if self.sheet is not None:
            return torch.stack([1.6 * one, 0.5 * one, one, one, self.sampled_distance(points), self.sheet * one])
        crisp = ((points @ self.normal.to(points) - self.depth_mm * float(self.normal[1])) / 0.3 + 0.5).clamp(0, 1)
        return torch.stack([1.6 + 0.1 * crisp, 0.5 * one, one, one])


def wall_levels_db(medium, probe) -> torch.Tensor:
    """The lobe's mean over the wall's echo, dB, of the middle rays."""
    renderer = UltrasoundRenderer(probe)
    plan, points = renderer.plan(torch.float32, "cpu"), renderer.points_ras(AT_FACE[None])
    impedance = medium.sample(points)[0]
    lobe = wall_slopes(plan, impedance)[0] ** 3
    weight = torch.nn.functional.pad(impedance.log().diff(dim=-1), (1, 0)).abs()
    level = 20 * torch.log10((lobe * weight).sum(-1) / weight.sum(-1))
    return level[0, 0, probe.rays // 4 : -(probe.rays // 4)]


@pytest.mark.parametrize("samples", [100, 400, 1600])
@pytest.mark.parametrize("tilt", [0.0, 10.0, 20.0, 30.0])
def test_a_crisp_wall_has_the_lobe_of_its_angle(samples, tilt):
    level = wall_levels_db(Wall(tilt), probe_of("linear", samples=samples))
    assert level.mean().item() == pytest.approx(120 * math.log10(math.cos(math.radians(tilt))), abs=0.1)
    assert level.std() < 0.9


def test_a_diverging_fan_meets_a_plane_at_the_angles_of_its_rays():
    probe = probe_of("convex")
    level = wall_levels_db(Wall(10.0), probe)
    angle = probe.angles_rad()[probe.rays // 4 : -(probe.rays // 4)] - math.radians(10)
    assert (level - 120 * torch.log10(torch.cos(angle))).abs().max() < 0.2


@pytest.mark.parametrize("tilt", [10.0, 15.0, 20.0, 30.0])
def test_a_tilted_plane_on_coarse_voxels_has_no_stairs(tilt):
    """Voxels of 3 mm with partial volume; before, with a step of 0.5 mm, the level jumped with every voxel."""
    normal = math.sin(math.radians(tilt)), math.cos(math.radians(tilt))

    def plane(maps, x, y, z):
        maps[0] += 0.1 * ((x * normal[0] + (y - 30) * normal[1]) / 3 / max(normal) + 0.5).clamp(0, 1)

    level = wall_levels_db(phantom(plane, spacing_mm=3.0, size_mm=81.0), probe_of("linear"))
    assert level.std() < 1.0
    assert level.mean().item() == pytest.approx(120 * math.log10(normal[1]), abs=0.6)


@pytest.mark.parametrize("kind", ["linear", "convex"])
@pytest.mark.parametrize("tilt", [0.0, 30.0, 50.0])
def test_an_oblique_wall_is_a_line_not_a_chain_of_dots(kind, tilt):
    """On rays that are further apart than the beam is wide."""
    probe = probe_of(kind, rays=48, f_number=1.0, transmit_f_number=1.5, mm_per_pixel=0.2)
    settings = {**QUIET, "speckle": False, "specular_exponent": 1.0}
    image = delivered(UltrasoundRenderer(probe, **settings), Wall(tilt, depth_mm=30.0))
    geometry = probe.slice_geometry()
    levels = []
    for x in torch.linspace(-6, 6, 121):
        column = round((x.item() - geometry.pixel_to_probe[0, 3].item()) / 0.2)
        row = round((30 - x.item() * math.tan(math.radians(tilt)) - geometry.pixel_to_probe[1, 3].item()) / 0.2)
        levels.append(10 * math.log10(image[row - 4 : row + 5, column].sum() + 1e-16))
    assert torch.tensor(levels).std() < 1.5


def test_the_lobe_keeps_a_diffuse_part():
    probe, shown = probe_of("linear", samples=200), {}
    for tilt in (0.0, 60.0):
        for exponent in (0.0, 6.0):
            renderer = UltrasoundRenderer(probe, specular_exponent=exponent, diffuse_db=-12.0, attenuation=False)
            plan, points = renderer.plan(torch.float32, "cpu"), renderer.points_ras(AT_FACE[None])
            shown[tilt, exponent] = ray_echoes(plan, Wall(tilt), points)[0][0, 0, 64].max()
    assert (shown[0.0, 6.0] / shown[0.0, 0.0]).item() == pytest.approx(1, abs=1e-3)
    # The spread over the depth that the wall gains between two rays costs a little, where the pulse is shorter.
    assert 20 * math.log10(shown[60.0, 6.0] / shown[60.0, 0.0]) == pytest.approx(-12, abs=3.5)


def sheet_profile_db(probe, medium, seeds=3):
    """Mean power along a level sheet at 30 mm against depth, dB re the tissue above and below it."""
    renderers = [UltrasoundRenderer(probe, **QUIET, sheet_db=0.0, seed=seed) for seed in range(seeds)]
    power = sum(delivered(renderer, medium)[:, 20:-20].mean(1) for renderer in renderers) / seeds
    tissue = torch.cat([power[220:270], power[340:390]]).mean()
    return 10 * torch.log10(power / tissue)


@pytest.mark.parametrize("samples", SAMPLINGS)
@pytest.mark.parametrize(("voxel_mm", "signed"), [(None, False), (1.0, False), (1.0, True)])
def test_a_sheet_is_a_bright_thin_line(samples, voxel_mm, signed):
    """A membrane of +12 dB at normal incidence: what its samples carry, 10 dB above white matter; 1.5 mm wide at most.

    Midway between two samples the echo is interpolated; with 0.8 mm between them that costs up to 3.2 dB.
    """
    for depth in (30.0, 30.25, 30.5):
        probe = probe_of("linear", samples=samples, depth_mm=80.0, mm_per_pixel=0.1)
        level = sheet_profile_db(probe, Wall(sheet=4.0, depth_mm=depth, voxel_mm=voxel_mm, signed=signed))
        amplitude = (10 ** (level / 10) - 1).clamp(min=0).sqrt()[200:400]
        midway = math.exp(-0.5 * (probe.sample_spacing_mm / 2 / (SHEET_FWHM_MM / 2.3548)) ** 2)
        assert level.max() > 10 * math.log10(1 + (4 * midway) ** 2) - 1.2  # the pulse, and the speckle around
        assert level.max() > 10 or samples < 200
        # Samples that are 0.8 mm apart cannot do better than two of them and the pulse.
        assert (amplitude > amplitude.max() / 2).sum() * 0.1 <= max(1.5, 2.3 * probe.sample_spacing_mm)
        assert 20 + 0.1 * amplitude.argmax().item() == pytest.approx(depth, abs=0.5)


def test_sheets_get_weaker_with_their_tilt_in_and_out_of_the_plane():
    probe = probe_of("linear", samples=400, depth_mm=60.0)
    amplitudes = {}
    for tilt, out in ((0, 0), (20, 0), (0, 20), (45, 0), (80, 0)):
        renderer = UltrasoundRenderer(
            probe, attenuation=False, sheet_db=0.0, sheet_coherence=0.0, sheet_diffuse_db=-12.0
        )
        plan, points = renderer.plan(torch.float32, "cpu"), renderer.points_ras(AT_FACE[None])
        strength = ray_echoes(plan, Wall(tilt, out, sheet=4.0, voxel_mm=1.0), points)[1][0, 0, 60]
        amplitudes[tilt, out] = (strength.max().square() - 1).sqrt().item() / 4
    floor = 10 ** (-12 / 20)
    for (tilt, out), amplitude in amplitudes.items():
        cosine = math.cos(math.radians(tilt)) * math.cos(math.radians(out))
        assert amplitude == pytest.approx(floor + (1 - floor) * cosine**6, abs=0.05)


@pytest.mark.parametrize("shift", [0.0, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("slope", [1.0, 0.8])
def test_a_sheets_distance_is_right_between_voxels(shift, slope):
    """Trilinear values of an unsigned distance do not reach zero; the profile does."""
    knots = torch.arange(-20, 21, dtype=torch.float64)
    depth = torch.linspace(-10, 10, 401, dtype=torch.float64)
    exact = slope * (depth - shift)
    below = depth.floor().clamp(max=19)
    at = [(slope * (knots - shift)).abs()[(below + 20 + n).long()] for n in (0, 1)]
    sampled = at[0] + (depth - below) * (at[1] - at[0])
    profile, cosine_square = (part[0] for part in sheet_shape(sampled[None], 0.05))
    expected = torch.exp(-0.5 * (exact / (1.1 / 2.3548)) ** 2)
    assert (profile - expected).abs().max() < 0.06
    near = exact.abs() < 0.6
    assert cosine_square[near].sqrt().tolist() == pytest.approx([slope] * int(near.sum()), abs=0.02)


class WallWithSheet(Wall):
    """A step of impedance, up or down, with a sheet on it."""

    step = 0.1

    def sample(self, points):
        values = Wall.sample(self, points)
        below = ((points[..., 1] - self.depth_mm) / 0.3 + 0.5).clamp(0, 1)
        return torch.cat([values[:1] + self.step * below, values[1:]])


@pytest.mark.parametrize("step", [0.1, -0.1])
def test_a_sheet_on_a_wall_adds_to_its_echo_whichever_way_impedance_goes(step):
    probe, echoes = probe_of("linear"), []
    for sheet in (0.0, 4.0):
        medium = WallWithSheet(sheet=sheet)
        medium.step = step
        renderer = UltrasoundRenderer(probe, attenuation=False)
        plan, points = renderer.plan(torch.float32, "cpu"), renderer.points_ras(AT_FACE[None])
        echoes.append(ray_echoes(plan, medium, points)[0][0, 0, 64])
    assert echoes[1].sum().abs() > 1.2 * echoes[0].sum().abs()
    assert (echoes[1] * step).min() > -0.02 * (echoes[1] * step).max()


def test_sheets_are_differentiable_and_may_be_switched_off():
    probe = probe_of("linear", samples=100, rays=16)
    renderer = UltrasoundRenderer(probe, fit=["sheet_db", "sheet_diffuse_db", "specular_exponent"])
    points = renderer.points_ras(AT_FACE[None]).requires_grad_()
    medium = Wall(20.0, sheet=4.0, voxel_mm=1.0)
    renderer.polar(medium, points).sum().backward()
    assert points.grad.abs().sum() > 0
    for parameter in renderer.parameters():
        assert parameter.grad.abs() > 0
    off = UltrasoundRenderer(probe, sheet_db=None)
    bare = Wall(20.0, sheet=0.0)
    assert torch.allclose(off(medium, AT_FACE), off(bare, AT_FACE))


def below_gas(maps, x, y, z):
    maps[0][y > 15], maps[1][y > 15], maps[3][y > 15] = PLATES["air"], 7.5, 0.0


def below_bone(maps, x, y, z):
    maps[0][y > 15], maps[1][y > 15], maps[3][y > 15] = PLATES["bone"], 15.0, 0.0


@pytest.mark.parametrize("samples", SAMPLINGS[2:5])
def test_gas_repeats_its_surface_at_equal_distances_each_weaker(samples):
    probe = probe_of("linear", samples=samples, mm_per_pixel=0.1)
    settings = {**QUIET, "speckle": False, "dirty_shadow_db": -160.0, "a_line_db": -20.0}
    level = 10 * torch.log10(delivered(UltrasoundRenderer(probe, **settings), phantom(below_gas))[:, 100] + 1e-16)
    surface = int(level[100:200].argmax()) + 100
    peaks = [level[n * surface - 15 : n * surface + 15].max().item() for n in (1, 2, 3)]
    for n in (2, 3):
        assert int(level[n * surface - 15 : n * surface + 15].argmax()) == pytest.approx(15, abs=7)
    assert peaks[1] == pytest.approx(46 - 20, abs=2.5)
    assert peaks[2] == pytest.approx(46 - 40, abs=2.5)


def test_a_line_sums_to_its_level_at_every_sampling():
    for samples in SAMPLINGS:
        probe = probe_of("linear", samples=samples, rays=8)
        sums = []
        for level in (-20.0, -160.0):
            renderer = UltrasoundRenderer(probe, attenuation=False, a_line_db=level)
            plan, points = renderer.plan(torch.float32, "cpu"), renderer.points_ras(AT_FACE[None])
            sums.append(ray_echoes(plan, phantom(below_gas), points)[0][0, 0, 4].sum().item())
        assert sums[0] - sums[1] == pytest.approx(0.1 + 0.01, abs=2e-3)


def test_the_shadow_of_gas_is_dirty_and_decays_and_that_of_bone_is_clean():
    probe = probe_of("linear", mm_per_pixel=0.1)
    levels = {}
    for name, paint in (("gas", below_gas), ("bone", below_bone)):
        renderer = UltrasoundRenderer(probe, **QUIET, a_line_db=-160.0)
        power = delivered(renderer, phantom(paint))
        levels[name] = [10 * math.log10(power[row : row + 40].mean() + 1e-14) for row in (180, 300, 420)]
    assert levels["gas"][0] == pytest.approx(-12, abs=4)
    drops = [levels["gas"][0] - levels["gas"][1], levels["gas"][1] - levels["gas"][2]]
    assert drops == pytest.approx([12 / 15 * 8.69] * 2, abs=1.5)
    assert levels["bone"][0] < -60


def test_gas_is_differentiable_and_absent_from_soft_tissue():
    probe = probe_of("linear", samples=100, rays=16)
    renderer = UltrasoundRenderer(probe, fit=["a_line_db", "dirty_shadow_db"], noise_db=None, dynamic_range_db=120.0)
    points = renderer.points_ras(AT_FACE[None]).requires_grad_()
    renderer.polar(phantom(below_gas), points).sum().backward()
    assert points.grad.isfinite().all()
    for parameter in renderer.parameters():
        assert parameter.grad.abs() > 0
    loud = UltrasoundRenderer(probe, a_line_db=0.0, dirty_shadow_db=40.0)
    assert torch.equal(loud(phantom(), AT_FACE), UltrasoundRenderer(probe)(phantom(), AT_FACE))


@pytest.mark.parametrize("name", ["abdominal-convex", "craniotomy-convex", "linear"])
def test_a_plates_face_is_as_bright_in_slices_of_few_samples(name):
    labels = np.ones((60, 120, 60), np.uint8)
    labels[:, 30:] = 2
    medium = AcousticMedium.from_labels(labels, {1: "muscle", 2: "bone"}, np.eye(4))
    shown = {"speckle": False, "noise_db": None, "clutter_db": None, "attenuation": False, "tgc_db_per_cm": 0.0}
    shown |= {"gain_db": -30.0, "dynamic_range_db": 120.0}
    pose = torch.eye(4, dtype=torch.float64)
    levels = []
    for samples in (100, 200, 1600):
        peaks = []
        for y in (2.0, 2.3, 2.6, 2.9):
            pose[:3, 3] = torch.tensor([30.0, y, 30.0])
            image = UltrasoundRenderer(replace(probe_preset(name), samples=samples), **shown)(medium, pose)[0]
            peaks.append(120 * image[:, image.shape[1] // 2].max().item())
        levels.append(np.mean(peaks))
    assert levels == pytest.approx([levels[-1]] * 3, abs=1.5)
