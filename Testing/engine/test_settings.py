"""One declaration a setting: the checks, the options and the renderer's models are made from it."""

import json
import math
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner
from diffus.cli.common import SETTINGS
from diffus.cli.main import main
from diffus.errors import InputError
from diffus.io.tables import read_settings
from diffus.probe import ConvexProbe, LinearProbe, PhasedProbe
from diffus.register.registration import Settings
from diffus.register.search import SearchSettings
from diffus.render.echo import ECHO_MODELS
from diffus.render.settings import PaperArtefacts, RenderSettings, make_settings, settings_to_dict
from diffus.settings import PROBE, SHAPES, declared

HOME = Path(__file__).resolve().parents[2] / "DiffUSRender"
COMMON = {"frequency_mhz": 5.0, "depth_mm": 60.0, "focus_mm": 30.0}
PROBES = {
    "convex": lambda **given: ConvexProbe(**{**COMMON, "radius_mm": 20.0, "fov_deg": 60.0, **given}),
    "linear": lambda **given: LinearProbe(**{**COMMON, "width_mm": 40.0, **given}),
    "phased": lambda **given: PhasedProbe(**{**COMMON, "fov_deg": 60.0, **given}),
}
NUMBERS = [
    *(("convex", name) for name in (*PROBE,) if name != "width_mm"),
    ("linear", "width_mm"),
    ("phased", "fov_deg"),
    *((RenderSettings, name) for name, one in declared(RenderSettings).items() if one.kind in (int, float)),
    *((Settings, name) for name in ("translation_mm", "rotation_deg")),
    *((SearchSettings, name) for name in declared(SearchSettings)),
]


def make(owner, **given):
    return PROBES[owner](**given) if isinstance(owner, str) else owner(**given)


def declaration(owner, name):
    return PROBE[name] if isinstance(owner, str) else declared(owner)[name]


@pytest.mark.parametrize(("owner", "name"), NUMBERS)
@pytest.mark.bad_input
def test_a_declared_range_is_the_range(owner, name):
    one = declaration(owner, name)
    for value in (one.low, one.high):
        if math.isfinite(value) and name != "mm_per_pixel":  # which is bounded by the size of the slice as well
            assert getattr(make(owner, **{name: one.kind(value)}), name) == value
    step = 1 if one.kind is int else 1e-3
    for value in (one.low - step, one.high + step, math.nan, math.inf, -math.inf, "9", True, torch.ones(2)):
        with pytest.raises(InputError) as error:
            make(owner, **{name: value})
        assert name in str(error.value)
        assert str(error.value).endswith(".")
    if one.optional:
        assert getattr(make(owner, **{name: None}), name) is None


def test_every_setting_is_declared_with_its_help():
    for owner in (ConvexProbe, LinearProbe, PhasedProbe, RenderSettings):
        assert {field.name for field in fields(owner)} - set(declared(owner)) <= {"artefacts"}
        assert all(one.help.endswith(".") for one in declared(owner).values())
    assert {field.name for field in fields(SearchSettings)} == set(declared(SearchSettings))
    assert set(SHAPES) == {probe.type for probe in (ConvexProbe, LinearProbe, PhasedProbe)}
    assert declared(RenderSettings)["echo"].choices is ECHO_MODELS
    assert all(map(callable, ECHO_MODELS.values()))
    assert declared(RenderSettings)["compression"].choices == ("log", "linear")


def test_a_panels_range_lies_within_the_engines():
    for one in (*PROBE.values(), *declared(RenderSettings).values(), *declared(Settings).values()):
        low, high = one.panel_range
        assert one.low <= low < high <= one.high or one.kind not in (int, float)


def test_the_commands_options_are_the_declared_settings():
    @click.command()
    def command(**given):
        pass

    for option in reversed(SETTINGS):
        command = option(command)
    made = {parameter.name: parameter for parameter in command.params}
    assert set(made) == {"preset", *declared(RenderSettings)}
    flags = {flag for parameter in made.values() for flag in (*parameter.opts, *parameter.secondary_opts)}
    assert {"--start-depth", "--no-psf", "--tgc-db-per-cm", "--grain-mm", "--compression"} <= flags
    assert "-120 to 120 dB" in made["gain_db"].help
    assert "default: 46" in made["reflection_db"].help


@pytest.mark.parametrize("option", ["--within-mm", "--within-deg"])
@pytest.mark.parametrize("value", ["nan", "inf", "0.5"])
def test_a_search_without_bounds_is_refused(option, value, tmp_path, monkeypatch):
    """NaN is neither below nor above a range; inf is above."""
    monkeypatch.chdir(tmp_path)
    given = ["--volume", "a.nrrd", "--kind", "mri", "--sweep", "b.mha", "--output", "c.tfm"]
    result = CliRunner().invoke(main, ["register", *given, option, value])
    assert result.exit_code == 2
    assert "There is no file" not in result.output
    assert value in result.output


def test_settings_are_read_without_torch():
    code = "import sys; sys.modules['torch'] = None\nimport diffus.settings, diffus.render.settings\n"
    code += "print(diffus.render.settings.RenderSettings().gain_db, diffus.settings.PROBE['f_number'].default)\n"
    code += "assert diffus.InputError and 'UltrasoundRenderer' in diffus.__all__"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=HOME, timeout=60, check=False
    )
    assert done.stdout == "-7.0 2.0\n", done.stderr


def test_the_front_door_has_what_it_names():
    import diffus

    for name in diffus.__all__:
        assert getattr(diffus, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'Renderer'"):
        _ = diffus.Renderer


def test_the_papers_look_goes_through_a_file_whole(tmp_path):
    paper = make_settings("paper", gain_db=torch.tensor(40.0), artefacts=PaperArtefacts(radial_std=torch.tensor(0.25)))
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(settings_to_dict(paper)))
    read = make_settings(**read_settings(path))
    assert read == paper.replace(gain_db=40.0, artefacts=PaperArtefacts(radial_std=0.25))
    assert make_settings(**settings_to_dict(RenderSettings())) == RenderSettings()


@pytest.mark.bad_input
@pytest.mark.parametrize("artefacts", [{"radial": 0.1}, {"radial_std": "much"}, {"radial_std": True}])
def test_artefacts_of_a_file_that_cannot_be(artefacts):
    with pytest.raises(InputError, match="must be numbers called radial_std"):
        make_settings(artefacts=artefacts)
