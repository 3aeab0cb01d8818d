"""The panel of DiffUSRender: the real .ui file and the real scene, with PySide6 offscreen for Qt."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import headless
import numpy as np
import pytest
import slicer
import slicer.util
import vtk

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed: the panel is not tested")

from DiffUSRenderLib.geometry import toVtk
from DiffUSRenderLib.parameters import RANGES, MediumKind, ProbePreset, ProbeType, readParameters
from headless.fixtures import addHead, addTransform, addVolume, rotation, sliceArray
from headless.qt_widgets import prepareQt, processEvents
from PySide6 import QtWidgets

MODULE = headless.ROOT / "DiffUSRender"
UI = MODULE / "Resources" / "UI" / "DiffUSRender.ui"


class Panel:
    """The module's widget as Slicer would show it, and short names for its parts."""

    def __init__(self) -> None:
        prepareQt()
        import DiffUSRender

        self.parent = QtWidgets.QWidget()
        QtWidgets.QVBoxLayout(self.parent)
        self.widget = DiffUSRender.DiffUSRenderWidget(self.parent)
        self.widget.setup()
        self.parent.resize(460, 900)
        self.parent.show()
        self.widget.enter()
        processEvents(10)

    @property
    def ui(self):
        return self.widget.ui

    @property
    def logic(self):
        return self.widget.logic

    @property
    def node(self):
        return self.widget._parameterNode

    @property
    def status(self) -> str:
        return self.ui.statusLabel.text()

    def settle(self) -> None:
        processEvents(60)

    def small(self) -> None:
        """A small, quick image."""
        self.ui.raysSpinBox.setValue(48)
        self.ui.samplesSpinBox.setValue(100)


@pytest.fixture
def panel():
    headless.newScene()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    view.SetLayoutName("Red")
    view.SetOrientationToCoronal()
    addHead()
    shown = Panel()
    shown.small()
    yield shown
    shown.widget.cleanup()
    shown.parent.deleteLater()
    processEvents()


def test_it_opens_with_what_the_scene_offers(panel):
    assert panel.node.inputVolume.GetName() == "CT head"
    assert panel.node.sliceView.GetName() == "Red"
    assert panel.ui.guessLabel.text() == "taken as CT"
    assert panel.status == ""


def test_apply_waits_for_inputs_and_says_which(panel):
    assert not panel.ui.applyButton.isEnabled()
    assert "probe" in panel.ui.applyButton.toolTip()
    panel.ui.probeSelector.setCurrentNode(addTransform(rotation(180, 0, 0, (0, 58, 0)), name="Probe"))
    assert panel.ui.applyButton.isEnabled()
    panel.ui.inputVolumeSelector.setCurrentNode(None)
    assert not panel.ui.applyButton.isEnabled()
    assert "volume" in panel.ui.applyButton.toolTip()


def test_a_click_makes_the_probe_and_a_click_the_slice(panel):
    panel.ui.createProbeButton.click()
    assert panel.node.probeTransform is not None
    assert panel.ui.probeSelector.currentNode() is panel.node.probeTransform
    panel.ui.applyButton.click()
    assert sliceArray(panel.node.outputSlice).std() > 5
    assert panel.ui.outputSelector.currentNode() is panel.node.outputSlice
    assert panel.status == ""


def test_what_cannot_be_done_is_said_below_the_button(panel):
    panel.ui.probeSelector.setCurrentNode(addTransform(np.diag([2.0, 2.0, 2.0, 1.0]), name="Image to probe"))
    count = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    panel.ui.applyButton.click()
    assert "'Image to probe' scales" in panel.status
    assert panel.node.outputSlice is None
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == count
    panel.ui.liveCheckBox.setChecked(True)
    assert not panel.ui.liveCheckBox.isChecked()
    assert not panel.logic.live.running


def test_live_follows_until_it_is_unticked(panel):
    panel.ui.createProbeButton.click()
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    first = sliceArray(panel.node.outputSlice)
    for step in range(4):
        panel.node.probeTransform.SetMatrixTransformToParent(toVtk(rotation(-90, 5 * step, 0, (0, 0, 55))))
        processEvents(30)
    assert not np.array_equal(first, sliceArray(panel.node.outputSlice))
    assert re.fullmatch(r"\d+ frames/s", panel.ui.rateLabel.text())
    panel.ui.liveCheckBox.setChecked(False)
    still = sliceArray(panel.node.outputSlice)
    panel.node.probeTransform.SetMatrixTransformToParent(toVtk(rotation(-90, 0, 0, (0, 20, 50))))
    panel.settle()
    assert np.array_equal(still, sliceArray(panel.node.outputSlice))
    assert panel.logic.live.observerCount == 0


def test_live_goes_on_in_another_module(panel):
    panel.ui.createProbeButton.click()
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    probe, output = panel.node.probeTransform, panel.node.outputSlice
    panel.widget.exit()
    before = sliceArray(output)
    probe.SetMatrixTransformToParent(toVtk(rotation(-90, 20, 0, (0, 0, 50))))
    panel.settle()
    assert not np.array_equal(before, sliceArray(output))
    panel.widget.enter()
    assert panel.ui.liveCheckBox.isChecked()
    assert panel.logic.live.running


def test_a_deleted_probe_ends_live_with_a_sentence(panel):
    panel.ui.createProbeButton.click()
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    slicer.mrmlScene.RemoveNode(panel.node.probeTransform)
    panel.settle()
    assert panel.status == "Live has stopped: 'Ultrasound probe' was deleted."
    assert not panel.ui.liveCheckBox.isChecked()
    assert not panel.ui.applyButton.isEnabled()


def test_a_closed_scene_ends_live_and_leaves_a_usable_panel(panel):
    panel.ui.createProbeButton.click()
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    slicer.mrmlScene.Clear(0)
    panel.settle()
    assert panel.status == "Live has stopped: the scene was closed."
    assert panel.node.inputVolume is None
    assert not panel.node.live
    addHead()
    panel.widget.enter()
    panel.ui.createProbeButton.click()
    panel.small()
    panel.ui.applyButton.click()
    assert sliceArray(panel.node.outputSlice).std() > 5


def test_a_preset_writes_its_numbers_and_a_number_makes_it_custom(panel):
    presets = list(ProbePreset)
    panel.ui.presetComboBox.setCurrentIndex(presets.index(ProbePreset.LINEAR))
    assert panel.node.probeType is ProbeType.LINEAR
    assert panel.node.frequencyMhz == pytest.approx(7.2)
    assert panel.node.preset is ProbePreset.LINEAR
    assert panel.ui.widthSlider.isVisibleTo(panel.parent)
    assert not panel.ui.radiusSlider.isVisibleTo(panel.parent)
    panel.ui.depthSlider.setValue(33)
    assert panel.node.preset is ProbePreset.CUSTOM
    assert panel.ui.presetComboBox.currentText() == "Custom"
    panel.ui.presetComboBox.setCurrentIndex(presets.index(ProbePreset.CRANIOTOMY_CONVEX))
    assert panel.node.depthMm == 70
    assert panel.ui.radiusSlider.isVisibleTo(panel.parent)


def test_every_preset_stays_what_it_is_although_the_sliders_round(panel):
    for index, preset in enumerate(ProbePreset):
        if preset is ProbePreset.CUSTOM:
            continue
        panel.ui.presetComboBox.setCurrentIndex(index)
        panel.ui.gainSlider.setValue(index)
        panel.widget.exit()
        panel.widget.enter()
        assert panel.node.preset is preset
        assert panel.status == ""


def test_another_module_and_back_changes_nothing(panel):
    for combo, index in (("presetComboBox", list(ProbePreset).index(ProbePreset.LINEAR)), ("kindComboBox", 2)):
        getattr(panel.ui, combo).setCurrentIndex(index)
    panel.ui.depthSlider.setValue(44)
    before = readParameters(panel.node), panel.node.preset, panel.node.kind
    observers = len(panel.node._guis)
    for _ in range(3):
        panel.widget.exit()
        panel.widget.enter()
    assert (readParameters(panel.node), panel.node.preset, panel.node.kind) == before
    assert len(panel.node._guis) == observers == 1


def test_the_panel_starts_from_the_engines_defaults(panel):
    from diffus_render import probe_preset
    from diffus_render.settings import RenderSettings
    from DiffUSRenderLib.engine import _imageSettings, buildProbe
    from DiffUSRenderLib.parameters import ImageSettings, ProbeSettings

    ours, theirs = _imageSettings(ImageSettings()), RenderSettings()
    assert ours == {name: getattr(theirs, name) for name in ours}
    assert buildProbe(ProbeSettings()) == probe_preset("craniotomy-convex")


def test_a_saved_scene_comes_back_with_its_own_numbers(panel):
    panel.ui.createProbeButton.click()
    panel.ui.depthSlider.setValue(91)
    panel.ui.kindComboBox.setCurrentIndex(list(MediumKind).index(MediumKind.CT))
    panel.ui.speckleCheckBox.setChecked(False)
    probeName = panel.node.probeTransform.GetName()
    scene = slicer.mrmlScene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    scene.SetSaveToXMLString(0)
    scene.Clear(0)
    panel.settle()
    assert panel.node.depthMm == 70
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    scene.SetLoadFromXMLString(0)
    panel.settle()
    assert panel.ui.depthSlider.value == 91
    assert panel.node.kind is MediumKind.CT
    assert not panel.ui.speckleCheckBox.isChecked()
    assert panel.node.preset is ProbePreset.CUSTOM
    assert panel.ui.probeSelector.currentNode().GetName() == probeName


def test_clicking_on_the_skin(panel):
    panel.ui.createProbeButton.click()
    panel.ui.placeOnSkinButton.click()
    assert "Click a point" in panel.status
    assert not panel.ui.placeOnSkinButton.isEnabled()
    panel.node.skinPoint.AddControlPointWorld(vtk.vtkVector3d(61, 0, 0))
    assert panel.ui.placeOnSkinButton.isEnabled()
    assert panel.status == ""
    assert slicer.util.arrayFromTransformMatrix(panel.node.probeTransform)[0, 3] == pytest.approx(60, abs=4)


def test_cleanup_leaves_no_observer_behind(panel):
    panel.ui.createProbeButton.click()
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    scene, node, probe = slicer.mrmlScene, panel.node.parameterNode, panel.node.probeTransform
    moved = slicer.vtkMRMLTransformableNode.TransformModifiedEvent
    assert probe.HasObserver(moved)
    assert scene.HasObserver(scene.StartCloseEvent)
    panel.widget.cleanup()
    assert not scene.HasObserver(scene.StartCloseEvent)
    assert panel.logic.live.observerCount == 0
    assert panel.node is None
    output = sliceArray(node.GetNodeReference("outputSlice"))
    probe.SetMatrixTransformToParent(toVtk(rotation(-90, 30, 0, (0, 0, 50))))
    panel.settle()
    assert np.array_equal(output, sliceArray(node.GetNodeReference("outputSlice")))


def test_the_simulated_slice_is_never_offered_as_the_patient(panel):
    panel.ui.createProbeButton.click()
    panel.ui.applyButton.click()
    slicer.mrmlScene.RemoveNode(panel.node.inputVolume)
    panel.widget.exit()
    panel.widget.enter()
    assert panel.node.inputVolume is None
    addVolume(np.random.default_rng(0).normal(size=(9, 9, 9)), None, "MRI")
    panel.widget.exit()
    panel.widget.enter()
    assert panel.node.inputVolume.GetName() == "MRI"


def test_it_looks_like_a_panel(panel, tmp_path):
    picture = panel.parent.grab()
    assert picture.save(str(tmp_path / "panel.png"))
    image = picture.toImage()
    colors = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
    assert len(colors) > 8


# --- the .ui file and the code agree


def _elements():
    return ElementTree.parse(UI).getroot().iter("widget")


def _properties(element) -> dict[str, str]:
    return {p.get("name"): "".join(p.itertext()).strip() for p in element.findall("property")}


def test_every_bound_parameter_exists_and_is_bound_once():
    from DiffUSRenderLib.parameter_node import RenderParameterNode

    bound = [name for e in _elements() if (name := _properties(e).get("SlicerParameterName"))]
    assert len(bound) == len(set(bound))
    assert set(bound) == set(RenderParameterNode.allParameters) - {"fanModel", "skinPoint"}


def test_every_widget_that_the_code_names_exists():
    names = {e.get("name") for e in _elements()}
    code = (MODULE / "DiffUSRenderLib" / "widget.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\bui\.(\w+)", code)) - {"findChildren"}
    assert len(used) > 15
    assert used <= names


def test_every_setting_has_a_tooltip_and_numbers_say_their_unit():
    units = {"Mhz": "MHz", "Mm": "mm", "Deg": "degrees", "Db": "dB", "DbPerCm": "dB per cm"}
    for element in _elements():
        properties = _properties(element)
        name = properties.get("SlicerParameterName")
        if not name and element.get("class") != "QPushButton":
            continue
        assert len(properties.get("toolTip", "")) > 20, element.get("name")
        unit = next((text for end, text in units.items() if name and name.endswith(end)), None)
        assert unit is None or unit in properties["toolTip"], element.get("name")


def test_ranges_in_the_file_are_those_of_the_parameters():
    for element in _elements():
        properties = _properties(element)
        name = properties.get("SlicerParameterName")
        if name in RANGES:
            assert (float(properties["minimum"]), float(properties["maximum"])) == RANGES[name], name


def test_every_selector_gets_the_scene():
    root = ElementTree.parse(UI).getroot()
    receivers = {c.findtext("receiver") for c in root.iter("connection")}
    assert receivers == {e.get("name") for e in root.iter("widget") if e.get("class") == "qMRMLNodeComboBox"}


def test_only_the_panel_knows_qt():
    for path in (MODULE / "DiffUSRenderLib").glob("*.py"):
        if path.name not in ("widget.py", "panel.py"):
            text = path.read_text(encoding="utf-8")
            assert not re.search(r"^\s*(import|from) (qt|ctk|PySide6|PythonQt)\b", text, re.M), path.name


def test_the_self_test_of_the_module_passes():
    headless.newScene()
    prepareQt()
    import DiffUSRender

    test = DiffUSRender.DiffUSRenderTest()
    test.setUp()
    test.runTest()
