"""One verdict from the evidence: trusted, check or rejected, with its reasons and the error to expect.

The limits stand in one table. They were set on registrations of simulated brain sweeps, good ones and corrupted ones
(another head, a mirrored fan, a scale 5 % off, a deformation of 5-10 mm, nothing to find); a good pose passes all.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass

from ..errors import Sentence, _
from .evidence import Evidence

CALIBRATED_ON = Sentence(
    _("simulated tracked brain sweeps against the T1 MRI of two heads, good and spoilt ones; no real ultrasound")
)
NOT_CALIBRATED = _("nothing like this run; the limits are those of {calibrated}")


@dataclass(frozen=True)
class Limit:
    """One test: the evidence's name, the bound beyond which the result must be checked, and what to say then."""

    name: str
    bound: float
    at_least: bool
    words: str


LIMITS = (
    Limit("overlap", 0.9, True, _("only {value:.0%} of the ultrasound lies in the volume")),
    Limit("frames", 5, True, _("only {value} frames from different places: too few to pin the pose down")),
    Limit(
        "z_score", 4.5, True, _("the similarity is little above that of random poses ({value:.1f} standard deviations)")
    ),
    Limit("runner_up", 0.93, False, _("another pose fits nearly as well ({value:.0%} of the similarity)")),
    Limit("global_fit", 0.1, True, _("one grey value mapping explains only {value:.1%} of the image")),
    Limit(
        "bend",
        0.55,
        False,
        _("bending the volume by {bend:.1f} mm improves the fit by {gain:.0%}: shift, deformation or a wrong pose"),
    ),
    Limit("scale_gain", 0.042, False, _("the image fits better if scaled by {scale:+.1f} %: check the calibration")),
    Limit("odd_even_mm", 0.8, False, _("odd and even frames disagree by {value:.1f} mm")),
    Limit(
        "halves_gain",
        0.06,
        False,
        _(
            "the first and second half of the sweep fit better by {value:.0%} at poses {apart:.1f} mm apart: "
            "did it move?"
        ),
    ),
    Limit("halves_mm", 3.0, False, _("the first and second half of the sweep fit best at poses {value:.1f} mm apart")),
    Limit("mirrored", 0.75, False, _("the mirrored image fits nearly as well: check the probe's marked side")),
)


class Verdict(str, enum.Enum):
    """How far a pose can be trusted; its value is what reports say."""

    TRUSTED = "trusted"
    CHECK = "check"
    REJECTED = "rejected"

    def __str__(self) -> str:
        return self.value


@dataclass(frozen=True)
class Judgement:
    """The verdict, why, and the errors to expect in mm over the fan's pixels (RMS, and 95th percentile).

    A rejected pose has no expected error: None.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    expected_error_mm: float | None
    expected_error_worst_mm: float | None
    calibrated_on: str = CALIBRATED_ON


def judge(evidence: Evidence | None, uncalibrated: str = "") -> Judgement:
    """The verdict of the evidence.

    Args:
        evidence: Without it (nothing overlaps) a pose is rejected.
        uncalibrated: In words, what of this run the limits were not set on; such a run gets no more than check.
    """
    basis = Sentence(NOT_CALIBRATED, calibrated=CALIBRATED_ON) if uncalibrated else CALIBRATED_ON
    if evidence is None:
        return Judgement(Verdict.REJECTED, (Sentence(_("the sweep and the volume do not overlap")),), None, None, basis)
    reasons = [_sentence(limit, evidence) for limit in LIMITS if _fails(limit, evidence)]
    if evidence.frames < 5:
        reasons.append(
            Sentence(
                _("weakest direction: {direction}, {mm:.2f} mm standard deviation"),
                direction=evidence.weakest,
                mm=evidence.weakest_mm,
            )
        )
    lost = _lost(evidence)
    if lost:
        return Judgement(Verdict.REJECTED, (lost, *reasons), None, None, basis)
    if uncalibrated:
        reasons.append(Sentence(_("the tests are not calibrated for {what}"), what=uncalibrated))
    expected = math.hypot(3 * evidence.laplace_mm, 0.3 * evidence.bend_mm)
    if not reasons:
        return Judgement(Verdict.TRUSTED, (Sentence(_("all tests passed")),), expected, 2.2 * expected, basis)
    return Judgement(Verdict.CHECK, tuple(reasons), 3 * expected, max(6 * expected, 5.0), basis)


def _fails(limit: Limit, evidence: Evidence) -> bool:
    value = getattr(evidence, limit.name)
    return not (value >= limit.bound if limit.at_least else abs(value) <= limit.bound)  # NaN fails


def _sentence(limit: Limit, evidence: Evidence) -> str:
    return Sentence(
        limit.words,
        value=getattr(evidence, limit.name),
        scale=evidence.scale_percent,
        apart=evidence.halves_mm,
        bend=evidence.bend_mm,
        gain=evidence.bend_gain,
    )


def _lost(evidence: Evidence) -> str:
    """Why the pose says nothing, or an empty string."""
    if not all(math.isfinite(value) for value in vars(evidence).values() if isinstance(value, float)):
        return Sentence(_("the evidence could not be computed (NaN)"))
    if evidence.overlap < 0.5:
        return Sentence(_("most of the ultrasound lies outside of the volume"))
    if evidence.z_score < 4.0:
        return Sentence(_("the similarity is no better than that of random poses"))
    if evidence.global_fit < 0.03 or (evidence.global_fit < 0.08 and evidence.runner_up > 0.93):
        return Sentence(_("the images do not agree with the volume better at this pose than at others"))
    return ""
