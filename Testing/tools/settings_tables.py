"""The tables in Docs/ that are made of the code, or of what the benchmarks wrote into Benchmarks/results.

Settings of both panels, tissues, probes, the tests of trust, and the figures of the page of physics.
Run: python Testing/tools/settings_tables.py, after one of them was changed; a test says when a page is out of date.
"""

from __future__ import annotations

import csv
import enum
import re
import sys
from dataclasses import MISSING
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "Testing" / "Benchmarks" / "results"
LEARNED, RECOVERED = 0.9, 5.0  # fraction of a prior's variance that the frames removed, and the aimed-at error in %
BEGIN, END = "<!-- {name}: made by Testing/tools/settings_tables.py -->", "<!-- end of {name} -->"
HEADER = "| setting | default | range | what it does |\n|---|---|---|---|"
BUTTONS = ("QPushButton", "QToolButton")


def tables(module: str) -> str:
    """One Markdown table per section of the module's panel: settings and buttons in the order of the panel."""
    node = parameter_node(module)
    panel = ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui").getroot()
    sections: dict[str, list[str]] = {}
    used: set[tuple] = set()
    label = ""
    for section, widget in widgets(panel.find("widget"), ()):
        properties = {p.get("name"): (p[0].text or "") if len(p) else "" for p in widget.findall("property")}
        parameter, text = properties.get("SlicerParameterName"), properties.get("text", "").strip()
        if widget.get("class") == "QLabel":
            label = text.rstrip(":") or label
        elif parameter or (widget.get("class") in BUTTONS and text):
            name = text or (label if (section, label) not in used else words(parameter))
            used.add((section, label))
            tip = properties.get("toolTip", "").replace("|", r"\|")
            row = [f"**{name}**", *value(node, parameter, properties), tip]
            sections.setdefault(" > ".join(section) or "Below the sections", []).append("| " + " | ".join(row) + " |")
    return "\n\n".join("\n".join([f"### {title}", "", HEADER, *rows]) for title, rows in sections.items())


def bound_parameters(module: str) -> set[str]:
    """The names of all parameters that a widget of the panel is bound to."""
    panel = ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui").getroot()
    return {p[0].text for p in panel.iter("property") if p.get("name") == "SlicerParameterName"}


def widgets(parent, section: tuple[str, ...]):
    """(section titles, widget element) of everything below a widget, in the order of the panel."""
    for child in parent:
        if child.tag in ("layout", "item"):
            yield from widgets(child, section)
        elif child.tag == "widget":
            title = child.find("property[@name='text']/string")
            inner = (*section, title.text) if child.get("class") == "ctkCollapsibleButton" else section
            yield inner, child
            yield from widgets(child, inner)


def parameter_node(module: str):
    """A fresh parameter node of the module, with every default."""
    sys.path.insert(0, str(ROOT / "Testing"))
    import headless

    scene = headless.newScene()
    from DiffUSLib.register.parameter_node import RegisterParameterNode
    from DiffUSLib.render.parameter_node import RenderParameterNode

    made = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", module)
    return (RenderParameterNode if module == "DiffUSRender" else RegisterParameterNode)(made)


def value(node, parameter: str | None, properties: dict[str, str]) -> tuple[str, str]:
    """Default and range of a setting, with units, in words."""
    if parameter is None:
        return "button", ""
    unit = properties.get("suffix", "").strip()
    default = getattr(node, parameter)
    if isinstance(default, enum.Enum):
        choices = "; ".join(choice.label() for choice in type(default))
        return default.label(), choices
    if default is None:
        return "none", "node"
    if isinstance(default, bool):
        return ("on" if default else "off"), ""
    if isinstance(default, str):
        return default or "empty", "text"
    from DiffUSLib.register import parameters as register
    from DiffUSLib.render import parameters as render

    low, high = {**register.RANGES, **render.RANGES}[parameter]
    return f"{default:g} {unit}".strip(), f"{low:g} to {high:.10g} {unit}".strip()


def declared(declarations: dict) -> str:
    """The engine's settings by name."""

    def row(name: str, one) -> str:
        default = "required" if one.default is MISSING else "none" if one.default is None else one.default
        if isinstance(default, bool):
            default = "yes" if default else "no"
        elif not isinstance(default, str):
            default = f"{default:g}"
        limits = ", ".join(one.choices)
        if one.kind in (int, float):
            limits = f"{one.low:g} to {one.high:.10g} {one.unit}".strip() if one.high < 2**63 - 1 else "0 or more"
        limits += " or none" if one.optional else ""
        text = one.help.replace("|", r"\|")
        return f"| `{name}` | {default} | {limits} | {text} |"

    return "\n".join([HEADER, *(row(name, one) for name, one in declarations.items())])


def frame_settings() -> str:
    """What RenderSettings, the options of render and a settings file name."""
    from diffus import settings
    from diffus.render.settings import RenderSettings

    return declared(settings.declared(RenderSettings))


def probe_numbers() -> str:
    """What a probe file holds."""
    from diffus.settings import PROBE

    return declared(PROBE)


def words(parameter: str) -> str:
    """A parameter's name in words: checkerMm, checker mm."""
    return re.sub(r"([A-Z])", lambda m: " " + m[1].lower(), parameter)


def tissues() -> str:
    """The acoustic properties of every tissue."""
    from diffus.medium.tissue import tissue_table

    rows = [
        f"| {t.name} | {t.density:g} | {t.speed:g} | {t.impedance_mrayl:g} | {t.attenuation_db_cm_mhz:g} "
        f"| {t.attenuation_exponent:g} | {'none' if t.scattering == 0 else f'{t.scattering_db:+g}'} |"
        for t in tissue_table().values()
    ]
    head = "| tissue | density kg/m3 | speed m/s | impedance MRayl | a dB/(cm MHz^b) | b | scattering dB |\n"
    return head + "|---|---|---|---|---|---|---|\n" + "\n".join(rows)


def probes() -> str:
    """The probes that come with the renderer, and what they resemble."""
    from diffus.probe.presets import preset_names, preset_source, probe_preset

    rows = []
    for name in preset_names():
        probe = probe_preset(name)
        rows.append(
            f"| `{name}` | {probe.type} | {probe.frequency_mhz:g} | {probe.depth_mm:g} | {preset_source(name)} |"
        )
    return (
        "| preset | array | MHz | depth mm | like, and where its numbers are from |\n|---|---|---|---|---|\n"
        + "\n".join(rows)
    )


def trust() -> str:
    """The tests of a pose with their bounds."""
    from diffus.register.verdict import LIMITS

    rows = [
        f"| `{limit.name}` | {'at least' if limit.at_least else 'at most'} {limit.bound:g} "
        f"| {re.sub(r'[{][^}]*[}]', '…', limit.words)} |"
        for limit in LIMITS
    ]
    return "| evidence | passed | else the reason says |\n|---|---|---|\n" + "\n".join(rows)


def result(name: str) -> list[dict[str, str]]:
    """The rows of a benchmark's table; its first line says what made it, and where."""
    with open(RESULTS / f"{name}.csv", newline="", encoding="utf-8") as file:
        next(file)
        return list(csv.DictReader(file))


def table(rows: list[dict[str, str]], columns: dict[str, str]) -> str:
    """Some columns of a table, {name in the file: heading}."""
    lines = ["| " + " | ".join(row[name] for name in columns) + " |" for row in rows]
    return "\n".join(["| " + " | ".join(columns.values()) + " |", "|---" * len(columns) + "|", *lines])


def cost() -> str:
    """Milliseconds of a frame of 256 rays, few and many samples."""
    rows = [r for r in result("paper_cost") if r["rays"] == "256" and r["samples"] in ("32", "200")]
    models = ("dense solve", "layered", "transmission", "reverberation", "whole frame")
    columns = {name: name for name in ("device", "pass", "samples")}
    return table(rows, columns | {f"{model}, ms": model for model in models})


def ablation() -> str:
    """Means over the sweeps of the paper's table 1."""
    rows = [r for r in result("ablation_benchmark") if r["sweep"].startswith("mean")]
    return table(rows, {"row": "row", "ncc": "NCC", "ssim": "SSIM", "mse": "MSE", "mae": "MAE"})


def fits() -> str:
    """Held-out correlation of each case, and how many of the numbers that the frames determine came out right."""
    numbers = [r for r in result("fit_recovery") if r["error %"] and r["parameter"] != "noise_db"]
    rows = result("fit_recovery_ncc")
    for row in rows:
        learned = [r for r in numbers if r["case"] == row["case"] and float(r["learned"] or 1) > LEARNED]
        off = [r for r in learned if float(r["error %"]) > RECOVERED]
        row["right"] = f"{len(learned) - len(off)} of {len(learned)}"
        row["off"] = ", ".join(f"{r['parameter'].split('_')[0]} of {r['tissue']} {r['error %']} %" for r in off)
    columns = {"case": "fitted", "before": "NCC before", "after": "after", "smoothed before": "smoothed before"}
    return table(rows, {**columns, "smoothed after": "after", "right": "within 5 %", "off": "the others"})


def poses() -> str:
    """Success of the recovery of a pose against the offset of its start."""
    rows = result("pose_recovery")
    columns = {"offset, mm and deg": "start off by, mm and °", "success": "within 0.3 mm and 0.3°"}
    return table(rows, {**columns, "median error of successes, mm": "median of these, mm"})


def reconstructions() -> str:
    """Correlation with held-out frames."""
    columns = {name: name for name in ("sweep", "held out", "start from")}
    kinds = {"start": "start", "reconstructed": "reconstructed", "compounded": "compounded"}
    return table(result("reconstruction"), columns | {f"NCC {name}": word for name, word in kinds.items()})


def likeness() -> str:
    """Statistics of real and simulated frames."""
    rows = result("realism")
    names = {"frames": "frames", "speckle_snr": "speckle SNR", "nakagami_m": "Nakagami m"}
    names |= {"axial_width_mm": "width along, mm", "lateral_width_mm": "across, mm", "gcnr": "gCNR"}
    return table(rows, {**names, "histogram_distance": "grey levels", "pkl": "pKL"})


def simus() -> str:
    """Point spread, level and contrast beside SIMUS."""
    rows = result("simus")
    return table(rows, {name: name for name in rows[0]})


BLOCKS = (
    (ROOT / "Docs" / "render.md", "settings", lambda: tables("DiffUSRender")),
    (ROOT / "Docs" / "render.md", "probes", probes),
    (ROOT / "Docs" / "commands.md", "probe", probe_numbers),
    (ROOT / "Docs" / "commands.md", "frame", frame_settings),
    (ROOT / "Docs" / "register.md", "settings", lambda: tables("DiffUSRegister")),
    (ROOT / "Docs" / "physics.md", "tissues", tissues),
    (ROOT / "Docs" / "physics.md", "cost", cost),
    (ROOT / "Docs" / "physics.md", "trust", trust),
    (ROOT / "Docs" / "physics.md", "fits", fits),
    (ROOT / "Docs" / "physics.md", "poses", poses),
    (ROOT / "Docs" / "physics.md", "reconstructions", reconstructions),
    (ROOT / "Docs" / "physics.md", "likeness", likeness),
    (ROOT / "Docs" / "physics.md", "ablation", ablation),
    (ROOT / "Docs" / "physics.md", "simus", simus),
)


def renewed(text: str, name: str, block: str) -> str:
    """A page's text with what stands between its two comments called `name` replaced."""
    begin, end = BEGIN.format(name=name), END.format(name=name)
    before, rest = text.split(begin)
    return f"{before}{begin}\n\n{block}\n\n{end}{rest.split(end)[1]}"


def main() -> None:
    for page, name, make in BLOCKS:
        page.write_text(renewed(page.read_text(encoding="utf-8"), name, make()), encoding="utf-8")
        print(f"{page.relative_to(ROOT)}: {name}")


if __name__ == "__main__":
    main()
