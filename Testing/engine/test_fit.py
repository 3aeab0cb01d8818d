"""Fitting through the renderer: known parameters come back from sweeps of another speckle, noise and display."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.fit import AppearanceFit, fixed_medium, label_medium, mri_medium
from diffus.fit.appearance import split_frames
from diffus.fit.parameters import ACQUISITION, OF_PROBE, Bounded, acquisition_parameters, chosen_parameters
from diffus.medium import AcousticMedium, ImpedanceMLP, load_impedance, tissue_table
from diffus.medium.memberships import network_levels
from diffus.medium.tissue import tissue_properties
from diffus.render.expected import expected_polar
from diffus.render.plan import plan_frame
from diffus.render.renderer import render_polar
from diffus.render.settings import RenderSettings
from support.fitting_cases import LABELS, PROBE, TRUE_DISPLAY, blobs, fan_sweep, head
from support.phantoms import phantom, pose_from


@pytest.fixture(scope="module")
def volume():
    return blobs()


@pytest.fixture(scope="module")
def acquired(volume):
    """A fit of the acquisition from defaults, of a sweep with another display, frequency, speckle and noise."""
    labels, matrix = volume
    probe = replace(PROBE, frequency_mhz=4.3)
    sweep = fan_sweep(AcousticMedium.from_labels(labels, LABELS, matrix), probe, seed=11, **TRUE_DISPLAY)
    names = ("tgc_db_per_cm", "gain_db", "dynamic_range_db", "frequency_mhz")
    fit = AppearanceFit(
        label_medium(labels, LABELS, matrix),
        sweep,
        torch.eye(4),
        probe=PROBE,
        settings=RenderSettings(gain_db=0.0),  # off the truth, whatever the defaults are
        parameters=names,
        frames=4,
        steps=10,
    )
    return list(fit), fit.result


def test_the_acquisition_comes_back_and_held_out_frames_agree_better(acquired):
    _, result = acquired
    found = {number.name: number.value for number in result.numbers}
    assert found["tgc_db_per_cm"] == pytest.approx(TRUE_DISPLAY["tgc_db_per_cm"], rel=0.05)
    assert found["gain_db"] == pytest.approx(TRUE_DISPLAY["gain_db"], rel=0.05)
    assert found["dynamic_range_db"] == pytest.approx(TRUE_DISPLAY["dynamic_range_db"], rel=0.05)
    assert found["frequency_mhz"] == pytest.approx(4.3, rel=0.05)
    # Of unsmoothed frames the correlation is that of two unrelated speckles, and says nothing of the fit.
    assert result.after.ncc_smoothed > max(0.98, result.before.ncc_smoothed)
    assert not set(result.fitted_frames) & set(result.held_out_frames)
    assert min(number.learned for number in result.numbers) > 0.9


def test_what_was_fitted_is_plain_and_can_be_rendered(acquired):
    states, result = acquired
    assert isinstance(result.probe.frequency_mhz, float)
    assert isinstance(result.settings.gain_db, float)
    assert result.probe == replace(PROBE, frequency_mhz=result.probe.frequency_mhz)
    assert [state.step for state in states] == list(range(1, 11))
    assert states[-1].loss < 0.2 * states[0].loss


def test_the_same_seed_gives_the_same_fit(volume):
    labels, matrix = volume
    sweep = fan_sweep(AcousticMedium.from_labels(labels, LABELS, matrix), PROBE, seed=3, count=4, gain_db=-6.0)

    def run():
        fit = AppearanceFit(
            label_medium(labels, LABELS, matrix),
            sweep,
            torch.eye(4),
            probe=PROBE,
            parameters=("gain_db", "dynamic_range_db"),
            frames=2,
            steps=2,
        )
        list(fit)
        return fit.result

    assert run() == run()


def test_tissues_come_back(volume):
    labels, matrix = volume
    true = {
        value: replace(tissue_table()[name], **change)
        for (value, name), change in zip(
            LABELS.items(),
            ({}, {}, {"scattering_db": 2.0, "attenuation_db_cm_mhz": 0.7}, {"scattering_db": 9.0}),
        )
    }
    display = {"tgc_db_per_cm": 5.0, "gain_db": -3.0, "noise_db": -60.0}
    sweep = fan_sweep(AcousticMedium.from_labels(labels, true, matrix), PROBE, seed=5, **display)
    fit = AppearanceFit(
        label_medium(labels, LABELS, matrix),
        sweep,
        torch.eye(4),
        probe=PROBE,
        settings=RenderSettings(**display),
        parameters=("scattering_db", "attenuation_db_cm_mhz"),
        frames=5,
        steps=8,
    )
    list(fit)
    found = {tissue.name: tissue for tissue in fit.result.tissues}
    for tissue in (true[1], true[3], true[4]):
        assert 10 ** ((found[tissue.name].scattering_db - tissue.scattering_db) / 20) == pytest.approx(1, abs=0.05)
        assert found[tissue.name].attenuation_db_cm_mhz == pytest.approx(tissue.attenuation_db_cm_mhz, rel=0.05)
        assert found[tissue.name].impedance_mrayl == tissue_table()[tissue.name].impedance_mrayl
    assert fit.result.after.ncc_smoothed > fit.result.before.ncc_smoothed


def test_with_gain_one_tissue_keeps_its_scattering(volume):
    labels, matrix = volume
    sweep = fan_sweep(AcousticMedium.from_labels(labels, LABELS, matrix), PROBE, count=4)
    medium = label_medium(labels, LABELS, matrix)
    fit = AppearanceFit(
        medium, sweep, torch.eye(4), probe=PROBE, parameters=("gain_db", "scattering_db"), frames=2, steps=2
    )
    list(fit)
    assert "liver" not in {number.tissue for number in fit.result.numbers}
    assert {number.tissue for number in fit.result.numbers} == {"", "fluid", "kidney", "tumour"}


def test_the_network_learns_another_impedance_curve():
    """Boundaries tell impedance steps: grey to white made three times as large comes back from a sweep."""
    t1, matrix, mask = head()
    true = load_impedance()
    true = _steeper(true, 4.0)
    display = {"speckle": True, "noise_db": -60.0, "reflection_db": 75.0}
    medium = AcousticMedium.from_mri(t1, matrix, mask, mapping=true)
    sweep = fan_sweep(medium, PROBE, seed=2, count=6, **display)
    fit = AppearanceFit(
        mri_medium(t1, matrix, mask),
        sweep,
        torch.eye(4),
        probe=PROBE,
        settings=RenderSettings(**display),
        parameters=("impedance",),
        frames=4,
        steps=8,
    )
    list(fit)
    level = torch.tensor([0.0, 0.6, 1.0])
    before, after, wanted = (_contrast(network(level)) for network in (load_impedance(), fit.result.mapping, true))
    assert (after - wanted).abs().max() < 0.5 * (before - wanted).abs().max()
    assert fit.result.after.ncc_smoothed > fit.result.before.ncc_smoothed
    assert 1.3 < fit.result.mapping(network_levels()).min() < fit.result.mapping(network_levels()).max() < 2.0


def _steeper(network, factor):
    other = ImpedanceMLP()
    other.load_state_dict(network.state_dict())
    with torch.no_grad():
        other.scale *= factor
        other.offset += network(torch.tensor(0.6)) - other(torch.tensor(0.6))
    return other.requires_grad_(False)


def _contrast(impedance):
    return impedance.log().diff()


# --- the parts


def test_the_mri_of_a_fit_is_the_mri_of_a_medium():
    t1, matrix, mask = head()
    medium = mri_medium(t1, matrix, mask)
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 15 + torch.tensor([0.0, 25.0, 0.0])
    (shares,) = medium.sample([points])
    curve = medium.mapping(network_levels())
    mixed = shares.mixed(tissue_properties(medium.tissues), curve).sample(points)
    direct = AcousticMedium.from_mri(t1, matrix, mask).sample(points)
    torch.testing.assert_close(mixed[1:], direct[1:], atol=2e-5, rtol=0)
    torch.testing.assert_close(mixed[0], direct[0], atol=5e-4, rtol=0)


def test_the_labels_of_a_fit_are_the_labels_of_a_medium(volume):
    labels, matrix = volume
    medium = label_medium(labels, LABELS, matrix)
    points = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)) * 20 + torch.tensor([0.0, 25.0, 0.0])
    first, second = medium.sample([points, points[:9]])
    table = tissue_properties(medium.tissues)
    direct = AcousticMedium.from_labels(labels, LABELS, matrix).sample(points)
    torch.testing.assert_close(first.mixed(table, None).sample(points), direct, atol=2e-5, rtol=0)
    torch.testing.assert_close(second.mixed(table, None).sample(points[:9]), direct[:, :9], atol=2e-5, rtol=0)


def test_expected_brightness_is_the_mean_over_speckle():
    def paint(maps, x, y, z):
        maps[3] = torch.where(x > 4, 0.05, 1.0)
        maps[0] += 0.2 * (y > 25)  # white: its echo is clipped

    medium = phantom(paint, size_mm=60.0)
    probe = replace(PROBE, rays=48, samples=120, depth_mm=40.0)
    settings = RenderSettings(noise_db=-50.0, gain_db=8.0, dynamic_range_db=40.0, reflection_db=57.0)
    plan = plan_frame(probe, settings)
    points = plan.points[None]
    with torch.no_grad():
        mean = torch.stack(
            [render_polar(plan_frame(probe, settings.replace(seed=n)), medium, points)[0] for n in range(60)]
        ).mean(0)
        expected = expected_polar(plan, medium, points)[0]
    difference = (expected - mean)[4:-4, 4:-4]
    assert difference.mean().abs() < 0.004
    assert difference.abs().mean() < 0.02  # 60 images leave 0.14 / sqrt(60) of chance
    assert (mean[4:-4] > 0.98).any()  # clipped pixels are in it
    assert (mean[-8:, 10:40] < 0.35).any()


def test_numbers_stay_in_their_range_and_start_where_they_are_told():
    number = Bounded("x", 5.0, 2.0, 12.0, 0.25, True)
    t = torch.tensor([-1e3, 0.0, 1e-3, 1e3], dtype=torch.float64)
    low, start, after, high = number.value(t).tolist()
    assert (low, start, high) == (pytest.approx(2.0), pytest.approx(5.0), pytest.approx(12.0))
    assert np.log(after / start) / 1e-3 == pytest.approx(0.25, rel=1e-3)


def test_names_of_groups_and_parameters():
    assert chosen_parameters(["acquisition", "gain_db"]) == ACQUISITION
    assert chosen_parameters(["gain_db", "impedance"]) == ("gain_db", "network")
    with pytest.raises(InputError, match="no parameter 'gains'"):
        chosen_parameters(["gains"])
    with pytest.raises(InputError, match="Nothing to fit"):
        chosen_parameters([])


def test_held_out_frames_are_one_stretch():
    kept, held = split_frames(20)
    assert held.tolist() == list(range(10, 15))
    assert sorted([*kept.tolist(), *held.tolist()]) == list(range(20))
    assert [len(part) for part in split_frames(4)] == [3, 1]


def test_frames_as_many_pixels_wide_but_of_another_size_are_not_the_probes_own(volume):
    labels, matrix = volume
    sweep = fan_sweep(AcousticMedium.from_labels(labels, LABELS, matrix), PROBE, count=4)
    half = sweep.image_to_reference.clone()
    half[:, :3, :2] *= 0.5
    fittable = label_medium(labels, LABELS, matrix)
    own, other = (
        AppearanceFit(fittable, replace(sweep, image_to_reference=pose), torch.eye(4), probe=PROBE).probe
        for pose in (sweep.image_to_reference, half)
    )
    assert own == PROBE
    assert other.depth_mm == pytest.approx(0.5 * PROBE.depth_mm, rel=0.03)
    assert other.transmit_f_number == PROBE.transmit_f_number  # the beam stays that of the probe given


def test_a_compounded_display_is_fitted_as_it_is_shown(volume):
    """The looks meet the medium at their own points, and the mean level of their mean envelope is higher."""
    labels, matrix = volume
    shown = RenderSettings(compounding=3, gain_db=-3.0)
    sweep = fan_sweep(AcousticMedium.from_labels(labels, LABELS, matrix), PROBE, count=4, **vars(shown))
    fit = AppearanceFit(
        label_medium(labels, LABELS, matrix),
        sweep,
        torch.eye(4),
        probe=PROBE,
        pixel_to_probe=PROBE.slice_geometry().pixel_to_probe,
        settings=shown.replace(gain_db=0.0),
        parameters=("gain_db",),
        frames=3,
        steps=4,
    )
    list(fit)
    assert fit.result.numbers[0].value == pytest.approx(-3.0, abs=0.3)
    assert fit.result.after.ncc_smoothed > 0.97


@pytest.mark.parametrize("start", [{"tgc_reach": 0.3}, {"tgc_reach": 1.0, "noise_db": 0.0, "tgc_db_per_cm": 40.0}])
@pytest.mark.parametrize("probe", [{}, {"depth_mm": 300.0, "focus_mm": 300.0}, {"focus_mm": 1.0}])
def test_no_number_leaves_the_range_of_its_setting(start, probe):
    probe, settings = replace(PROBE, **probe), RenderSettings(**start)
    for number in acquisition_parameters(ACQUISITION, probe, settings):
        for t in (-30.0, 30.0):
            value = {number.name: number.value(torch.tensor(t, dtype=torch.float64))}
            replace(probe if number.name in OF_PROBE else settings, **value)  # refuses what is out of range


def test_bad_requests_get_one_sentence(volume):
    labels, matrix = volume
    medium = AcousticMedium.from_labels(labels, LABELS, matrix)
    sweep = fan_sweep(medium, PROBE, count=4)
    fittable = label_medium(labels, LABELS, matrix)

    def fit(medium=fittable, sweep=sweep, place=None, **options):
        pose = torch.eye(4) if place is None else place
        list(AppearanceFit(medium, sweep, pose, **({"probe": PROBE, "frames": 1, "steps": 2} | options)))

    with pytest.raises(InputError, match="A CT's tissues"):
        fit(fixed_medium(medium), parameters=("tissues",))
    with pytest.raises(InputError, match="Only an MRI"):
        fit(parameters=("impedance",))
    with pytest.raises(InputError, match="outside of the volume"):
        fit(place=pose_from((0.0, 0.0, 0.0), (500.0, 0.0, 0.0)))
    with pytest.raises(InputError, match="at least 4 frames"):
        fit(sweep=sweep.subset([0, 1]))
    with pytest.raises(InputError, match="logarithmic display"):
        fit(settings=RenderSettings(compression="linear"))
