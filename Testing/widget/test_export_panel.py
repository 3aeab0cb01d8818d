"""The section "Export" of DiffUSRender's panel, on the real .ui file and the real scene."""

from __future__ import annotations

import re

import headless
import numpy as np
import pytest
import slicer

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed: the panel is not tested")

from DiffUSLib.render.parameters import ExportFormat, ImagePreset
from DiffUSLib.run import RunState
from headless.fixtures import addHead, addTransform, rotation, sliceArray
from headless.panels import renderPanel
from headless.qt_widgets import processEvents, savePicture
from headless.register_fixtures import addBrowser, poseSequence
from PIL import Image
from PySide6 import QtWidgets

MODULE = headless.ROOT / "DiffUSRender"
FORMATS = list(ExportFormat)


@pytest.fixture
def panel(tmp_path):
    """The module's widget as Slicer shows it, with a head, a probe and a small image."""
    headless.newScene()
    addHead()
    with renderPanel("exportSection") as shown:
        yield shown


def choose(panel, kind, path=""):
    panel.ui.exportFormatComboBox.setCurrentIndex(FORMATS.index(kind))
    panel.ui.exportPathLineEdit.setText(str(path))


def addProbe(panel):
    probe = addTransform(rotation(180, 0, 0, (0, 58, 0)), name="Probe")
    panel.ui.probeSelector.setCurrentNode(probe)
    return probe


def record(panel, count=5):
    sequence = poseSequence([rotation(180, 2.0 * n, 0, (2.0 * n, 57, 0)) for n in range(count)], "ProbeToReference")
    browser = addBrowser(sequence, name="Recorded sweep")
    panel.ui.probeSelector.setCurrentNode(browser.GetProxyNode(sequence))
    panel.ui.exportBrowserSelector.setCurrentNode(browser)
    return browser


def finish(panel):
    for _ in range(400):
        if panel.logic.export.state is RunState.IDLE:
            return panel.ui.exportStatusLabel.text()
        processEvents(5)
    raise AssertionError("the export does not end")


def test_the_button_waits_and_says_what_is_missing(panel, tmp_path):
    button = panel.ui.exportButton
    assert not button.isEnabled()
    assert "probe" in button.toolTip()
    addProbe(panel)
    assert not button.isEnabled()
    assert button.toolTip() == "Choose the file to write."
    choose(panel, ExportFormat.NRRD, tmp_path / "a")
    assert button.isEnabled()
    choose(panel, ExportFormat.GIF, tmp_path / "a")
    assert not button.isEnabled()
    assert "recording" in button.toolTip()
    record(panel)
    assert button.isEnabled()
    panel.ui.inputVolumeSelector.setCurrentNode(None)
    assert not button.isEnabled()
    assert "volume" in button.toolTip()
    assert not panel.ui.exportMapsButton.isEnabled()
    assert "volume" in panel.ui.exportMapsButton.toolTip()


def test_a_click_writes_the_slice(panel, tmp_path):
    addProbe(panel)
    choose(panel, ExportFormat.PNG, tmp_path / "slice")
    panel.ui.exportButton.click()
    assert finish(panel) == f"Written: {tmp_path / 'slice.png'} (1 slice)."
    panel.ui.applyButton.click()
    shown = sliceArray(panel._parameterNode.outputSlice)[0]
    picture = np.asarray(Image.open(tmp_path / "slice.png"))
    np.testing.assert_array_equal(picture[-shown.shape[0] :][shown > 0], shown[shown > 0])
    assert panel.ui.exportButton.text() == "Export"
    assert not panel.ui.exportProgressBar.isVisible()


def test_a_sweep_is_written_while_the_panel_lives_and_can_be_cancelled(panel, tmp_path):
    record(panel, 12)
    choose(panel, ExportFormat.DICOM, tmp_path / "sweep")
    panel.ui.exportButton.click()
    assert panel.ui.exportButton.text() == "Cancel"
    assert not panel.ui.exportPathLineEdit.isEnabled()
    while panel.ui.exportProgressBar.value() < 200:
        processEvents(1)
    assert panel.ui.exportProgressBar.isVisible()
    panel.ui.exportButton.click()
    assert finish(panel) == "The export was cancelled; nothing was written."
    assert list(tmp_path.iterdir()) == []
    panel.ui.exportButton.click()
    assert finish(panel) == f"Written: {tmp_path / 'sweep.dcm'} (12 slices)."
    assert panel.ui.exportPathLineEdit.isEnabled()


def test_another_module_is_opened_meanwhile(panel, tmp_path):
    record(panel, 6)
    choose(panel, ExportFormat.IGS, tmp_path / "sweep")
    panel.ui.exportButton.click()
    panel.exit()
    finish(panel)
    assert (tmp_path / "sweep.igs.mha").exists()
    panel.enter()
    assert panel.ui.exportButton.isEnabled()


def test_the_scene_is_closed_meanwhile(panel, tmp_path):
    record(panel, 6)
    choose(panel, ExportFormat.IGS, tmp_path / "sweep")
    panel.ui.exportButton.click()
    processEvents(5)
    slicer.mrmlScene.Clear(0)
    processEvents(20)
    assert panel.logic.export.state is RunState.IDLE
    assert panel.ui.exportStatusLabel.text() == "The export has stopped: the scene was closed."
    assert list(tmp_path.iterdir()) == []


def test_what_the_format_means_is_said(panel):
    addProbe(panel)
    record(panel)
    for kind, said in (
        (ExportFormat.DICOM, "holds no poses: export .seq.nrrd or .igs.mha"),
        (ExportFormat.PNG, "SIMULATED"),
        (ExportFormat.NRRD, ".ProbeToReference.seq.mha"),
        (ExportFormat.IGS, "PLUS"),
        (ExportFormat.SCENE, "browser"),
    ):
        choose(panel, kind)
        assert said in panel.ui.exportHintLabel.text()
        assert panel.ui.exportPatientCheckBox.isVisible() == (kind is ExportFormat.DICOM)
        assert panel.ui.exportPathLineEdit.isVisible() == (kind is not ExportFormat.SCENE)


def test_the_file_is_chosen_in_a_dialog(panel, tmp_path, monkeypatch):
    addProbe(panel)
    asked = []

    def answer(parent, title, start, kinds):
        asked.append((start, kinds))
        return str(tmp_path / "picked.dcm"), kinds

    monkeypatch.setattr(QtWidgets.QFileDialog, "getSaveFileName", answer)
    choose(panel, ExportFormat.NRRD)
    panel.ui.exportBrowseButton.click()
    assert panel._parameterNode.exportPath == str(tmp_path / "picked.nrrd")
    assert asked[0][0].endswith("simulated.nrrd")
    assert "*.nrrd" in asked[0][1]
    monkeypatch.setattr(QtWidgets.QFileDialog, "getSaveFileName", lambda *_: ("", ""))
    panel.ui.exportBrowseButton.click()
    assert panel.ui.exportPathLineEdit.text() == str(tmp_path / "picked.nrrd")


def test_the_acoustic_maps_come_by_a_click(panel):
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode")
    panel.ui.exportMapsButton.click()
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == before + 4
    assert panel.ui.exportStatusLabel.text() == "4 acoustic maps were added to the scene."


def test_the_choices_come_back_with_the_scene(panel, tmp_path):
    record(panel)
    choose(panel, ExportFormat.MP4, tmp_path / "film.mp4")
    panel.ui.exportPatientCheckBox.setChecked(True)
    scene = slicer.mrmlScene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    saved = scene.GetSceneXMLString()
    scene.SetSaveToXMLString(0)
    scene.Clear(0)
    processEvents(10)
    assert panel._parameterNode.exportFormat is ExportFormat.NRRD
    scene.SetLoadFromXMLString(1)
    scene.SetSceneXMLString(saved)
    scene.Import()
    scene.SetLoadFromXMLString(0)
    processEvents(10)
    assert panel._parameterNode.exportFormat is ExportFormat.MP4
    assert panel.ui.exportPathLineEdit.text() == str(tmp_path / "film.mp4")
    assert panel.ui.exportPatientCheckBox.isChecked()
    assert panel.ui.exportBrowserSelector.currentNode().GetName() == "Recorded sweep"


def test_every_widget_that_the_section_names_exists(panel):
    code = (MODULE / "DiffUSLib" / "render" / "export_panel.py").read_text(encoding="utf-8")
    used = set(re.findall(r"\b_?ui\.(export\w+)", code))
    assert len(used) > 8
    assert used <= set(vars(panel.ui))


def test_it_looks_like_a_section(panel, tmp_path):
    record(panel)
    choose(panel, ExportFormat.DICOM, tmp_path / "sweep")
    processEvents(30)
    image = savePicture(panel.ui.exportSection, "render_export")
    assert len({image.pixel(x, y) for x in range(0, image.width(), 3) for y in range(0, image.height(), 3)}) > 8


def test_settings_are_saved_and_loaded(panel, tmp_path, monkeypatch):
    path = tmp_path / "settings.json"
    monkeypatch.setattr("DiffUSLib.render.export_panel.chooseFile", lambda *_, **__: str(path))
    presets = list(ImagePreset)
    panel.ui.imagePresetComboBox.setCurrentIndex(presets.index(ImagePreset.PAPER))
    panel.ui.saveSettingsButton.click()
    panel.ui.imagePresetComboBox.setCurrentIndex(presets.index(ImagePreset.DEFAULT))
    panel.ui.depthSlider.setValue(33)
    panel.ui.loadSettingsButton.click()
    node = panel._parameterNode
    assert (node.imagePreset, node.depthMm, node.paperArtefacts) == (ImagePreset.PAPER, 70, True)
    path.write_text("{}[")
    panel.ui.loadSettingsButton.click()
    assert "not valid JSON" in panel.ui.statusLabel.text()
    assert node.imagePreset is ImagePreset.PAPER
