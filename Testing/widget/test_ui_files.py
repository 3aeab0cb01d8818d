"""The .ui files of both panels and the code agree: widgets, parameters, ranges, help."""

from __future__ import annotations

import re
from types import SimpleNamespace
from xml.etree import ElementTree

import headless
import pytest

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed: the panel is not tested")

from diffus.settings import PROBE
from DiffUSLib.declared import hiddenNames
from DiffUSLib.register import parameters as register
from DiffUSLib.register.parameter_node import RegisterParameterNode
from DiffUSLib.render import parameters as render
from DiffUSLib.render.parameter_node import RenderParameterNode
from headless.panels import Panel

LIBRARY = headless.ROOT / "DiffUSRender" / "DiffUSLib"
PANELS = {
    "DiffUSRender": SimpleNamespace(
        ranges=render.RANGES,
        parameters=set(RenderParameterNode.allParameters),
        unbound={"fanModel", "skinPoint", "comparedSlice", "comparedPair"}  # made by the module, not chosen
        | {"aModeChart", "aModeSeries", "aModeTable"}
        | hiddenNames(PROBE | render.IMAGE),
        sections=["inputs", "probe", "image", "live", "aMode", "compare", "appearance", "export"],
        code=("render/widget.py", "render/a_mode_panel.py", "render/export_panel.py", "render/match_panel.py"),
    ),
    "DiffUSRegister": SimpleNamespace(
        ranges=register.RANGES,
        parameters=set(RegisterParameterNode.allParameters),
        unbound={"report", "curveChart", "resultTransform", "resultTable"}
        | {"acceptedTransform", "previousTransform", "hadPrevious"},
        sections=["inputs", "start", "run", "result", "trust"],
        code=("register/widget.py",),
    ),
}
UNITS = {"Mhz": "MHz", "Mm": "mm", "Deg": "degrees", "Db": "dB", "DbPerCm": "dB per cm"}


@pytest.fixture(params=PANELS)
def panel(request):
    """What the code says of a panel, with the widgets of its file: name, class and properties as text."""
    path = headless.ROOT / request.param / "Resources" / "UI" / f"{request.param}.ui"
    root = ElementTree.parse(path).getroot()
    widgets = [
        SimpleNamespace(
            name=element.get("name"),
            kind=element.get("class"),
            properties={p.get("name"): "".join(p.itertext()).strip() for p in element.findall("property")},
        )
        for element in root.iter("widget")
    ]
    return SimpleNamespace(module=request.param, root=root, widgets=widgets, **vars(PANELS[request.param]))


def test_every_bound_parameter_exists_and_is_bound_once(panel):
    bound = [name for w in panel.widgets if (name := w.properties.get("SlicerParameterName"))]
    assert len(bound) == len(set(bound))
    assert set(bound) == panel.parameters - panel.unbound


def test_every_widget_that_the_code_names_exists(panel):
    names = {w.name for w in panel.widgets}
    for path in panel.code:
        used = set(re.findall(r"\bui\.(\w+)", (LIBRARY / path).read_text(encoding="utf-8")))
        assert used, path
        assert used <= names, path


def test_every_setting_has_a_tooltip_and_numbers_say_their_unit(panel):
    for widget in panel.widgets:
        name = widget.properties.get("SlicerParameterName", "")
        if not name and widget.kind != "QPushButton":
            continue
        tip = widget.properties.get("toolTip", "")
        assert len(tip) > 20, widget.name
        unit = next((text for end, text in UNITS.items() if name.endswith(end)), widget.properties.get("suffix", ""))
        assert unit.strip(" °%") in tip, widget.name


def test_the_panel_allows_what_is_declared(panel):
    """The file holds no ranges of its own: the parameter node brings them."""
    headless.newScene()
    shown = Panel(panel.module, 900)
    bound = {w.properties.get("SlicerParameterName"): w for w in panel.widgets}
    assert set(panel.ranges) <= set(bound)
    for name, (low, high) in panel.ranges.items():
        widget = getattr(shown.ui, bound[name].name)
        assert not {"minimum", "maximum", "value"} & set(bound[name].properties), name
        assert (widget.property("minimum"), widget.property("maximum")) == pytest.approx((low, high)), name
        kind = type(getattr(shown.node, name))
        for value in (low, high):
            setattr(shown.node, name, kind(value))
            assert getattr(shown.node, name) == value
        with pytest.raises(ValueError, match="within"):
            setattr(shown.node, name, kind(high + 1))
    shown.close()


def test_every_selector_gets_the_scene(panel):
    receivers = {c.findtext("receiver") for c in panel.root.iter("connection")}
    assert receivers == {w.name for w in panel.widgets if w.kind == "qMRMLNodeComboBox"}


def test_the_sections_stand_in_the_order_of_the_work(panel):
    sections = [w for w in panel.widgets if w.kind == "ctkCollapsibleButton"]
    advanced = [w for w in sections if "Advanced" in w.name or "advanced" in w.name]
    order = [re.sub("Button$|Section$", "", w.name) for w in sections if w not in advanced]
    assert order == panel.sections
    assert all(w.properties.get("collapsed") == "true" for w in advanced)
