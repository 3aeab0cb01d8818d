"""One verdict from the evidence: trusted, check or rejected, with its reasons and the error to expect.

The limits stand in one table. They were set on registrations of simulated brain sweeps, good ones and spoilt ones
(another head, a mirrored fan, a scale 5 % off, a deformation of 5-10 mm, nothing to find); a good pose passes all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .evidence import Evidence

CALIBRATED_ON = "simulated tracked brain sweeps of two heads, good and spoilt ones; consistent on real data, not proven"


@dataclass(frozen=True)
class Limit:
    """One test: the evidence's name, the bound beyond which the result must be checked, and what to say then."""

    name: str
    bound: float
    at_least: bool
    words: str


LIMITS = (
    Limit("overlap", 0.9, True, "only {value:.0%} of the ultrasound lies in the volume"),
    Limit("frames", 5, True, "only {value} frames: too few to pin the pose down"),
    Limit(
        "z_score", 6.5, True, "the similarity is little above that of random poses ({value:.1f} standard deviations)"
    ),
    Limit("runner_up", 0.93, False, "another pose fits nearly as well ({value:.0%} of the similarity)"),
    Limit("global_fit", 0.08, True, "one grey value mapping explains only {value:.1%} of the image"),
    Limit(
        "bend_gain",
        0.22,
        False,
        "bending the volume improves the fit by {value:.0%}: shift, deformation or a wrong pose",
    ),
    Limit("scale_gain", 0.035, False, "the image fits better if scaled by {scale:+.1f} %: check the calibration"),
    Limit("odd_even_mm", 0.8, False, "odd and even frames disagree by {value:.1f} mm"),
    Limit(
        "early_late_mm", 0.7, False, "the first and second half of the sweep disagree by {value:.1f} mm: did it move?"
    ),
    Limit("mirrored", 0.75, False, "the mirrored image fits nearly as well: check the probe's marked side"),
)


@dataclass(frozen=True)
class Verdict:
    """verdict is trusted, check or rejected; expected errors in mm over the fan's pixels (RMS, and 95th percentile)."""

    verdict: str
    reasons: tuple[str, ...]
    expected_error_mm: float
    expected_error_worst_mm: float
    calibrated_on: str = CALIBRATED_ON


def judge(evidence: Evidence | None, prior_mm: float) -> Verdict:
    """The verdict; without evidence (nothing overlaps) it is rejected.

    prior_mm: how far the pose may be from the first guess, the error to expect where the result says nothing.
    """
    if evidence is None:
        return Verdict("rejected", ("the sweep and the volume do not overlap",), prior_mm, 2 * prior_mm)
    reasons = [_sentence(limit, evidence) for limit in LIMITS if _fails(limit, evidence)]
    if evidence.frames < 5:
        reasons.append(f"weakest direction: {evidence.weakest}, {evidence.weakest_mm:.2f} mm standard deviation")
    lost = _lost(evidence)
    if lost:
        return Verdict("rejected", (lost, *reasons), prior_mm, 2 * prior_mm)
    expected = math.hypot(3 * evidence.laplace_mm, 0.3 * evidence.bend_mm)
    if not reasons:
        return Verdict("trusted", ("all tests passed",), expected, 2.2 * expected)
    return Verdict("check", tuple(reasons), 3 * expected, max(6 * expected, 5.0))


def _fails(limit: Limit, evidence: Evidence) -> bool:
    value = getattr(evidence, limit.name)
    return not (value >= limit.bound if limit.at_least else abs(value) <= limit.bound)  # NaN fails


def _sentence(limit: Limit, evidence: Evidence) -> str:
    return limit.words.format(value=getattr(evidence, limit.name), scale=evidence.scale_percent)


def _lost(evidence: Evidence) -> str:
    """Why the pose says nothing, or an empty string."""
    if not all(math.isfinite(value) for value in vars(evidence).values() if isinstance(value, float)):
        return "the evidence could not be computed (NaN)"
    if evidence.overlap < 0.5:
        return "most of the ultrasound lies outside of the volume"
    if evidence.z_score < 4.0:
        return "the similarity is no better than that of random poses"
    if evidence.global_fit < 0.03 or (evidence.global_fit < 0.08 and evidence.runner_up > 0.93):
        return "the images do not agree with the volume better at this pose than at others"
    return ""
