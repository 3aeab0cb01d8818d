"""The panel of DiffUSRender: the real .ui file and the real scene, with PySide6 offscreen for Qt."""

from __future__ import annotations

import re

import headless
import numpy as np
import pytest
import slicer
import slicer.util
import vtk

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed: the panel is not tested")

from diffus.render.settings import make_settings
from DiffUSLib.engine import buildProbe
from DiffUSLib.kinds import MediumKind, PatientDisplay
from DiffUSLib.render.parameters import (
    CompareMode,
    EchoModel,
    ImagePreset,
    ProbePreset,
    ProbeType,
    imageValues,
    readParameters,
)
from DiffUSLib.scene.transforms import toVtk
from headless.fixtures import addHead, addSegmentation, addTransform, addVolume, observerCount, rotation, sliceArray
from headless.panels import Panel
from headless.qt_widgets import ctkCollapsibleButton, processEvents, qMRMLNodeComboBox, savePicture

MODULE = headless.ROOT / "DiffUSRender"
UI = MODULE / "Resources" / "UI" / "DiffUSRender.ui"


@pytest.fixture
def panel():
    headless.newScene()
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(slicer.mrmlScene)
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    view.SetLayoutName("Red")
    view.SetOrientationToCoronal()
    addHead()
    shown = Panel("DiffUSRender", 900)
    shown.small()
    yield shown
    shown.close()


def test_it_opens_with_what_the_scene_offers(panel):
    assert panel.node.inputVolume.GetName() == "CT head"
    assert panel.node.sliceView.GetName() == "Red"
    assert panel.ui.guessLabel.text() == "taken as CT"
    assert panel.status == ""


def test_a_tracked_frame_is_offered_as_real_image_and_never_as_patient(panel):
    panel.node.inputVolume = None
    slicer.mrmlScene.RemoveNode(slicer.mrmlScene.GetFirstNodeByName("CT head"))
    frames = [addVolume(np.ones((1, 40, 40), np.uint8), None, name) for name in ("Photograph", "US frame")]
    frames[1].SetAndObserveTransformNodeID(addTransform(name="ImageToReference").GetID())
    panel.widget.exit()
    panel.widget.enter()
    assert panel.node.inputVolume is None
    assert panel.node.realImage is frames[1]


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
    assert re.fullmatch(r"\d+ frames/s, (full|reduced) quality", panel.ui.rateLabel.text())
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


def test_an_image_preset_writes_its_look_and_a_change_makes_it_custom(panel):
    presets = list(ImagePreset)
    assert panel.ui.imagePresetComboBox.currentIndex() == presets.index(ImagePreset.DEFAULT)
    panel.ui.startDepthSlider.setValue(12)
    panel.ui.seedSpinBox.setValue(3)
    assert panel.node.imagePreset is ImagePreset.DEFAULT  # neither belongs to the look
    for index, preset in enumerate(presets):
        if preset is ImagePreset.CUSTOM:
            continue
        panel.ui.imagePresetComboBox.setCurrentIndex(index)
        panel.widget.exit()
        panel.widget.enter()
        assert panel.node.imagePreset is preset
        assert panel.status == ""
        assert (panel.node.startDepthMm, panel.node.seed) == (12, 3)
        settings = make_settings(preset.value, start_depth_mm=12.0, seed=3)
        assert imageValues(readParameters(panel.node).image) == vars(settings)
    panel.ui.imagePresetComboBox.setCurrentIndex(presets.index(ImagePreset.PAPER))
    assert not panel.ui.dynamicRangeSlider.isEnabled()  # the paper's display is linear
    panel.ui.gainSlider.setValue(40)
    assert panel.node.imagePreset is ImagePreset.CUSTOM
    assert panel.node.paperArtefacts  # and all else that it had
    assert panel.node.echoModel is EchoModel.LAYERED
    panel.ui.imagePresetComboBox.setCurrentIndex(presets.index(ImagePreset.DEFAULT))
    assert not panel.node.paperArtefacts
    assert panel.node.noise


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
    from diffus import probe_preset
    from diffus.render.settings import RenderSettings
    from DiffUSLib.render.parameters import ImageSettings, ProbeSettings

    assert imageValues(ImageSettings()) == vars(RenderSettings())
    assert buildProbe(ProbeSettings()) == probe_preset("craniotomy-convex")


def test_a_saved_scene_comes_back_with_its_own_numbers(panel):
    panel.ui.createProbeButton.click()
    panel.ui.depthSlider.setValue(91)
    panel.ui.kindComboBox.setCurrentIndex(list(MediumKind).index(MediumKind.CT))
    panel.ui.speckleCheckBox.setChecked(False)
    panel.ui.automaticQualityCheckBox.setChecked(False)
    panel.ui.compareModeComboBox.setCurrentIndex(1)
    panel.ui.maskSelector.setCurrentNode(addVolume(np.ones((9, 9, 9), np.uint8), None, "Brain", "LabelMapVolume"))
    panel.ui.realImageSelector.setCurrentNode(addVolume(np.ones((1, 40, 40), np.uint8), None, "US frame"))
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
    assert not panel.node.automaticQuality
    assert panel.node.compareMode is CompareMode.SIDE_BY_SIDE
    assert panel.ui.maskSelector.currentNode().GetName() == "Brain"
    assert panel.ui.realImageSelector.currentNode().GetName() == "US frame"


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


def addRealImage(panel) -> tuple:
    """A real frame, under a transform, of what the panel simulates, and the slice view's layers."""
    import DiffUSLib.scene.transforms as geometry

    panel.node.depthMm, panel.node.fovDeg, panel.node.radiusMm = 80.0, 60.0, 30.0
    panel.ui.createProbeButton.click()
    panel.ui.applyButton.click()
    pixels = np.pad(np.maximum(sliceArray(panel.node.outputSlice)[0], 1)[::3, ::3], 12)
    pixels[pixels == 1] = 0
    matrix = geometry.ijkToRas(panel.node.outputSlice) @ np.diag([3.0, 3.0, 3.0, 1.0])
    matrix[:3, 3] -= 12 * matrix[:3, :2].sum(1)
    real = addVolume(pixels[np.newaxis], matrix, "US frame")
    real.SetAndObserveTransformNodeID(panel.node.probeTransform.GetID())
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", "Green")
    view.SetLayoutName("Green")
    layers = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", "Green")
    layers.SetLayoutName("Green")
    panel.ui.compareViewSelector.setCurrentNode(view)
    return real, layers


def test_comparing_in_the_panel(panel):
    assert not panel.ui.compareCheckBox.isEnabled()
    assert "real ultrasound image" in panel.ui.compareCheckBox.toolTip()
    real, layers = addRealImage(panel)
    panel.ui.realImageSelector.setCurrentNode(real)
    assert panel.ui.compareCheckBox.isEnabled()
    panel.ui.compareCheckBox.setChecked(True)
    panel.settle()
    assert re.match(r"NCC 0\.\d\d, SSIM", panel.ui.compareLabel.text())
    assert layers.GetBackgroundVolumeID() == real.GetID()
    panel.ui.compareFadeSlider.setValue(0.9)
    panel.settle()
    assert layers.GetForegroundOpacity() == pytest.approx(0.9)
    panel.widget.exit()  # it goes on in another module, and is found again
    panel.widget.enter()
    assert panel.logic.comparison.live.running
    panel.ui.compareModeComboBox.setCurrentIndex(1)
    panel.settle()
    assert layers.GetBackgroundVolumeID() == panel.node.comparedPair.GetID()
    assert not panel.ui.compareFadeSlider.isVisibleTo(panel.parent)
    panel.ui.compareCheckBox.setChecked(False)
    assert layers.GetBackgroundVolumeID() is None
    assert panel.ui.compareLabel.text() == ""
    assert panel.logic.comparison.live.observerCount == 0


def test_the_probe_from_the_real_image(panel):
    assert not panel.ui.fromImageButton.isEnabled()
    real, _layers = addRealImage(panel)
    panel.ui.presetComboBox.setCurrentIndex(list(ProbePreset).index(ProbePreset.LINEAR))
    panel.ui.realImageSelector.setCurrentNode(real)
    panel.ui.fromImageButton.click()
    assert panel.node.probeType is ProbeType.CONVEX
    assert panel.node.fovDeg == pytest.approx(60, abs=1.5)
    assert panel.node.preset is ProbePreset.CUSTOM
    assert panel.status.startswith("Seen in the image: Convex")
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    assert panel.status.startswith("Seen in the image: Convex")  # a frame that went well says nothing
    panel.node.probeTransform.SetMatrixTransformToParent(toVtk(rotation(0, 0, 0, (0, 4000, 0))))
    panel.settle()
    assert "outside the volume" in panel.status
    panel.node.probeTransform.SetMatrixTransformToParent(toVtk(rotation(-90, 0, 0, (0, 0, 55))))
    panel.settle()
    assert panel.status == ""
    panel.ui.liveCheckBox.setChecked(False)
    panel.ui.realImageSelector.setCurrentNode(panel.node.inputVolume)
    panel.ui.fromImageButton.click()
    assert "is a volume, not a frame" in panel.status


def test_a_mask_is_for_mri_and_ct(panel):
    assert panel.ui.maskSelector.isEnabled()
    panel.ui.createProbeButton.click()
    panel.ui.applyButton.click()
    before = sliceArray(panel.node.outputSlice)
    mask = addVolume(np.zeros((39, 39, 39), np.uint8), None, "Brain", "LabelMapVolume")
    mask.CopyOrientation(panel.node.inputVolume)
    slicer.util.arrayFromVolume(mask)[:, :, :20] = 1
    panel.ui.maskSelector.setCurrentNode(mask)
    panel.ui.applyButton.click()
    assert panel.status == ""
    assert not np.array_equal(before, sliceArray(panel.node.outputSlice))
    panel.ui.kindComboBox.setCurrentIndex(list(MediumKind).index(MediumKind.LABELS))
    assert not panel.ui.maskSelector.isEnabled()
    assert not panel.ui.addedSelector.isEnabled()


def test_the_a_mode_line_in_the_panel(panel, tmp_path, monkeypatch):
    assert not panel.ui.aModeLateralSlider.isEnabled()
    panel.ui.createProbeButton.click()
    panel.ui.aModeCheckBox.setChecked(True)
    assert panel.node.aModeTable is None  # there is no slice yet
    panel.ui.applyButton.click()
    middle = slicer.util.arrayFromTableColumn(panel.node.aModeTable, "level_db").copy()
    panel.ui.aModeLateralSlider.setValue(6)
    aside = slicer.util.arrayFromTableColumn(panel.node.aModeTable, "level_db")
    assert len(aside) == len(middle) == 100
    assert not np.array_equal(aside, middle)
    path = tmp_path / "line.csv"
    monkeypatch.setattr("DiffUSLib.render.a_mode_panel.chooseFile", lambda *_, **__: str(path))
    panel.ui.aModeExportButton.click()
    assert panel.status == ""
    assert len(path.read_text().splitlines()) == 101
    monkeypatch.setattr(panel.widget, "attempt", None)  # a message at every step would stop the slider
    panel.ui.aModeLateralSlider.setValue(95)
    assert "outside of the fan" in panel.status
    panel.ui.aModeLateralSlider.setValue(5)
    assert panel.status == ""


def test_the_patient_is_shown_around_the_slice_and_goes_again(panel):
    def surfaces():
        return [n for n in slicer.util.getNodesByClass("vtkMRMLModelNode") if "surface" in n.GetName()]

    panel.ui.patientComboBox.setCurrentIndex(list(PatientDisplay).index(PatientDisplay.SURFACE))
    assert len(surfaces()) == 1
    panel.widget.exit()
    panel.widget.enter()
    assert len(surfaces()) == 1
    panel.ui.patientComboBox.setCurrentIndex(list(PatientDisplay).index(PatientDisplay.VOLUME_RENDERING))
    assert "choose the surface" in panel.status  # there is no such module here
    assert surfaces() == []
    panel.ui.patientComboBox.setCurrentIndex(list(PatientDisplay).index(PatientDisplay.SURFACE))
    panel.ui.inputVolumeSelector.setCurrentNode(None)
    assert surfaces() == []


def test_added_tissues_are_followed_and_a_name_that_is_none_is_said(panel):
    from DiffUSLib.scene.transforms import ijkToRas

    panel.ui.createProbeButton.click()
    panel.ui.liveCheckBox.setChecked(True)
    panel.settle()
    before = sliceArray(panel.node.outputSlice)
    head = slicer.util.arrayFromVolume(panel.node.inputVolume) > 0
    added = addSegmentation({"Tumour": head.astype(np.uint8)}, ijkToRas(panel.node.inputVolume))
    panel.ui.addedSelector.setCurrentNode(added)
    panel.settle()
    assert panel.status == ""
    assert not np.array_equal(before, sliceArray(panel.node.outputSlice))
    added.GetSegmentation().GetNthSegment(0).SetName("Segment_1")
    panel.settle()
    assert panel.status.startswith("No tissue is called 'Segment_1': rename")
    added.GetSegmentation().GetNthSegment(0).SetName("Liver")
    panel.settle()
    assert panel.status == ""


def test_a_click_that_is_cancelled_changes_nothing(panel):
    panel.ui.createProbeButton.click()
    before = slicer.util.arrayFromTransformMatrix(panel.node.probeTransform).copy()
    panel.ui.placeOnSkinButton.click()
    interaction = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLInteractionNode")
    interaction.SetCurrentInteractionMode(interaction.ViewTransform)
    assert panel.ui.placeOnSkinButton.isEnabled()
    assert panel.status == ""
    assert np.array_equal(before, slicer.util.arrayFromTransformMatrix(panel.node.probeTransform))


def observers() -> dict[str, int]:
    """How many observers the scene and each of its nodes have; the tests' own selectors observe the scene too."""
    scene = slicer.mrmlScene
    nodes = [scene.GetNthNode(n) for n in range(scene.GetNumberOfNodes())]
    return {"scene": observerCount(scene)} | {node.GetID(): observerCount(node) for node in nodes}


def test_reloading_the_module_leaves_no_observers(panel):
    real, _layers = addRealImage(panel)
    panel.ui.realImageSelector.setCurrentNode(real)
    panel.ui.compareCheckBox.setChecked(True)
    panel.ui.placeOnSkinButton.click()
    panel.settle()  # every node is there now
    panel.ui.compareCheckBox.setChecked(False)
    panel.widget.cleanup()
    before = observers()
    for _ in range(2):
        again = Panel("DiffUSRender", 900)
        again.ui.liveCheckBox.setChecked(True)
        again.ui.compareCheckBox.setChecked(True)
        again.ui.placeOnSkinButton.click()
        again.settle()
        assert again.logic.live.running
        assert again.logic.comparison.live.running
        assert sum(observers().values()) > sum(before.values())
        again.node.live = again.node.compare = False
        again.widget.cleanup()
        for selector in again.widget.uiWidget.findChildren(qMRMLNodeComboBox):
            selector.setMRMLScene(None)
        again.parent.deleteLater()
        processEvents()
        after = observers()
        assert after == before


def test_closing_the_scene_leaves_no_observers_but_the_panels_own(panel):
    before = observerCount(slicer.mrmlScene)
    real, _layers = addRealImage(panel)
    panel.ui.realImageSelector.setCurrentNode(real)
    panel.ui.liveCheckBox.setChecked(True)
    panel.ui.compareCheckBox.setChecked(True)
    panel.settle()
    slicer.mrmlScene.Clear(0)
    panel.settle()
    assert observerCount(slicer.mrmlScene) == before
    assert not panel.logic.live.running
    assert not panel.logic.comparison.live.running
    assert panel.ui.compareLabel.text() == ""


def test_it_looks_like_a_panel(panel):
    sections = [w for w in vars(panel.ui).values() if isinstance(w, ctkCollapsibleButton)]
    for name, height, folded in (("panel", 900, None), ("unfolded", 1900, False)):
        for section in sections if folded is not None else ():
            section.setCollapsed(folded)
        panel.parent.resize(470, height)
        processEvents(30)
        image = savePicture(panel.parent, f"render_{name}")
        colors = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
        assert len(colors) > 8
    assert panel.parent.width() == 470  # nothing in it needs more room


def test_the_panel_allows_every_frequency_that_the_engine_does(panel):
    panel.ui.frequencySlider.setValue(40.0)
    assert panel.node.frequencyMhz == 40.0
    assert buildProbe(readParameters(panel.node).probe).frequency_mhz == 40.0
