"""The similarity curve and the table of a result, as nodes that Slicer plots, shows and saves."""

from __future__ import annotations

from vtk import vtkStringArray

from ..i18n import _
from ..scene.line_plot import LinePlot
from .start import LandmarkPairs


def createSimilarityCurve(scene) -> LinePlot:
    """The plot that grows while the registration runs: progress in %, and the best similarity so far, no unit."""
    names = _("Registration curve"), _("Similarity"), _("Registration similarity")
    plot = LinePlot.create(scene, names, ("Progress %", "Similarity"), _("Similarity, no unit"))
    plot.against("Progress %", _("Progress, %"))
    plot.chart.SetTitle(_("Similarity of the best pose"))
    return plot


def createResultTable(scene, name: str, report: dict):
    """A table node with the rows of `reportRows`."""
    node = scene.AddNewNodeByClass(
        "vtkMRMLTableNode", scene.GenerateUniqueName(_("{name} registration report").format(name=name))
    )
    columns = [vtkStringArray() for _column in range(3)]
    for column, title in zip(columns, (_("Quantity"), _("Value"), _("Unit"))):
        column.SetName(title)
    for row in reportRows(report):
        for column, text in zip(columns, row):
            column.InsertNextValue(text)
    for column in columns:
        node.AddColumn(column)
    node.SetUseColumnTitleAsColumnHeader(True)
    return node


def reportRows(report: dict) -> list[tuple[str, str, str]]:
    """The rows of the report's table, the verdict first.

    Args:
        report: what `RegistrationResult.report` gives, with landmark distances where there are any.

    Returns:
        (quantity, value, unit) of each row.
    """
    rows = [(_("Verdict"), verdictText(report["verdict"]), "")]
    rows += [(_("Reason"), reason, "") for reason in report["reasons"]]
    rows += [
        (_("Expected error"), *_length(report["expected_error_mm"])),
        (_("Expected error, worst 5 %"), *_length(report["expected_error_worst_mm"])),
        (_("Calibrated on"), str(report["calibrated_on"]), ""),
        (_("Assumes"), str(report.get("assumptions", "")), ""),
        (_("Similarity"), _number(report["similarity"]), ""),
        (_("Frames used"), str(report["frames_used"]), ""),
        (_("Frames skipped"), str(report["frames_skipped"]), ""),
        (_("Time"), _number(report["seconds"]), "s"),
    ]
    for key, title in (("landmarks_before_mm", _("Landmarks before")), ("landmarks_after_mm", _("Landmarks after"))):
        if distances := report.get(key):
            mean, worst = sum(distances) / len(distances), max(distances)
            rows.append((title, _("mean {mean:.2f}, largest {worst:.2f}").format(mean=mean, worst=worst), "mm"))
    for name, value in (report.get("evidence") or {}).items():
        unit = "mm" if name.endswith("_mm") else "%" if name.endswith("_percent") else ""
        rows.append((name.removesuffix("_mm").removesuffix("_percent").replace("_", " "), _number(value), unit))
    rows += [(_("Note"), str(note), "") for note in report.get("notes", ())]
    return rows


def landmarkReport(pairs: LandmarkPairs | None, before, after) -> dict:
    """Distances of the landmark pairs before and after, mm, for the report; empty without pairs."""
    if pairs is None:
        return {}
    return {
        "landmarks_before_mm": pairs.distancesMm(before).tolist(),
        "landmarks_after_mm": pairs.distancesMm(after).tolist(),
    }


def verdictText(verdict: str) -> str:
    """The verdict in words."""
    return {"trusted": _("Trusted"), "check": _("Check"), "rejected": _("Rejected")}.get(verdict, verdict)


def _length(value: float | None) -> tuple[str, str]:
    """Value and unit of a length in mm that may not be known."""
    return (_("not known"), "") if value is None else (_number(value), "mm")


def _number(value) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
