"""The verdict: what it takes to be trusted, and what each test says when it fails."""

import dataclasses

import pytest
from diffus.register.evidence import Evidence
from diffus.register.verdict import judge

GOOD = Evidence(
    overlap=1.0,
    similarity=0.15,
    z_score=14.0,
    runner_up=0.7,
    starts_agreeing=0.2,
    global_fit=0.15,
    bend_mm=0.8,
    bend_gain=0.06,
    odd_even_mm=0.25,
    halves_mm=0.6,
    halves_gain=0.02,
    scale_percent=-0.5,
    scale_gain=0.004,
    mirrored=0.35,
    laplace_mm=0.05,
    weakest_mm=0.03,
    weakest="shift up-down",
    frames=24,
)


def test_all_tests_passed_is_trusted_with_a_small_error():
    verdict = judge(GOOD)
    assert verdict.verdict == "trusted"
    assert 0 < verdict.expected_error_mm < verdict.expected_error_worst_mm < 3
    assert "simulated" in verdict.calibrated_on


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("overlap", 0.8, "80%"),
        ("frames", 3, "3 frames from different places"),
        ("z_score", 4.2, "random poses"),
        ("runner_up", 0.97, "another pose"),
        ("global_fit", 0.09, "9.0%"),
        ("bend_gain", 0.8, "bending the volume by 0.8 mm improves the fit by 80%"),
        ("scale_gain", 0.08, "-0.5 %"),
        ("odd_even_mm", 1.5, "odd and even"),
        ("mirrored", 0.9, "mirrored"),
    ],
)
def test_each_test_alone_turns_trusted_to_check(name, value, words):
    verdict = judge(dataclasses.replace(GOOD, **{name: value}))
    assert verdict.verdict == "check"
    assert words in verdict.reasons[0]
    assert verdict.expected_error_worst_mm >= 5.0


@pytest.mark.parametrize(
    "change",
    [
        {"overlap": 0.3},
        {"z_score": 2.0},
        {"global_fit": 0.004, "runner_up": 1.02},
        {"global_fit": 0.004, "bend_gain": 0.3},
    ],
)
def test_nothing_to_go_by_is_rejected_and_has_no_expected_error(change):
    verdict = judge(dataclasses.replace(GOOD, **change))
    assert verdict.verdict == "rejected"
    assert verdict.reasons
    assert verdict.expected_error_mm is None
    assert verdict.expected_error_worst_mm is None


def test_no_overlap_is_rejected():
    assert judge(None).verdict == "rejected"


def test_few_frames_name_the_weakest_direction():
    verdict = judge(dataclasses.replace(GOOD, frames=1))
    assert verdict.verdict == "check"
    assert any("weakest direction: shift up-down" in reason for reason in verdict.reasons)


def test_evidence_that_could_not_be_computed_is_rejected():
    for name in ("z_score", "bend_gain", "laplace_mm", "mirrored"):
        assert judge(dataclasses.replace(GOOD, **{name: float("nan")})).verdict == "rejected"


def test_halves_that_disagree_are_not_trusted():
    verdict = judge(dataclasses.replace(GOOD, halves_gain=0.2, halves_mm=4.0))
    assert verdict.verdict == "check"
    assert "did it move" in verdict.reasons[0]


def test_one_frame_names_its_weakest_direction_even_when_rejected():
    verdict = judge(dataclasses.replace(GOOD, frames=1, z_score=3.0))
    assert verdict.verdict == "rejected"
    assert any("shift up-down" in reason for reason in verdict.reasons)


def test_what_the_limits_were_not_set_on_gets_no_more_than_check():
    verdict = judge(GOOD, "volumes of kind ct")
    assert verdict.verdict == "check"
    assert "not calibrated for volumes of kind ct" in verdict.reasons[0]
    assert verdict.calibrated_on.startswith("nothing like this run")
    assert judge(dataclasses.replace(GOOD, z_score=1.0), "volumes of kind ct").verdict == "rejected"
