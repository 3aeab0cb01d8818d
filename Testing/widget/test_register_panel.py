"""The panel of DiffUSRegister: the real .ui file and the real scene, with PySide6 offscreen for Qt."""

from __future__ import annotations

from types import SimpleNamespace

import headless
import numpy as np
import pytest
import slicer
import slicer.util

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed: the panel is not tested")

from DiffUSLib.panel import runSoon
from DiffUSLib.register.parameters import OverlayMode, ShownPose, StartFrom
from DiffUSLib.run import RunState
from headless.fixtures import addTransform, addVolume, rotation
from headless.panels import Panel
from headless.qt_widgets import processEvents, savePicture
from headless.register_fixtures import (
    addBrowser,
    addView,
    fakeEngine,
    frameArray,
    hang,
    imageSequence,
    poseSequence,
    toWorld,
)

MODULE = headless.ROOT / "DiffUSRegister"
UI = MODULE / "Resources" / "UI" / "DiffUSRegister.ui"
TARGET = rotation(0, 0, 90, (10, 20, 30))


class RegisterPanel(Panel):
    """The panel with a registration that does as it is told."""

    def __init__(self) -> None:
        Panel.__init__(self, "DiffUSRegister", 1000)
        self.will()

    def will(self, **settings) -> None:
        """What the next registration does."""
        self.logic._build = fakeEngine(**{"target": TARGET, **settings})

    def register(self, **settings) -> None:
        self.will(**settings)
        self.ui.applyButton.click()
        self.finish()

    def finish(self) -> None:
        """Waits for the end of the registration."""
        for _ in range(400):
            if self.logic.state is RunState.IDLE:
                return
            processEvents(5)
        raise AssertionError("the registration does not end")

    def picture(self, name: str) -> None:
        self.settle()
        savePicture(self.parent, name)


@pytest.fixture
def panel():
    headless.newScene()
    addView()
    volume = addVolume(np.random.default_rng(0).random((20, 20, 20), np.float32), name="MRBrain")
    hang(volume, addTransform(rotation(3, 0, 0, (1, 2, 3)), name="Planning"))
    poses = [rotation(0, 5 * k, 0, (2 * k + 1, 0, 0)) for k in range(3)]
    images = [frameArray(k, 48, 64) for k in range(3)]
    addBrowser(imageSequence(images), poseSequence(poses, "p", "ImageToReference"), name="Tracked sweep")
    shown = RegisterPanel()
    shown.node.inputVolume = volume
    yield shown
    shown.close()


def volume():
    return slicer.mrmlScene.GetFirstNodeByName("MRBrain")


def test_it_opens_with_what_the_scene_offers(panel):
    assert panel.node.ultrasound.GetName() == "Tracked sweep"
    assert panel.node.sliceView.GetName() == "Red"
    assert panel.ui.guessLabel.text().startswith("taken as MRI")
    assert panel.ui.verdictLabel.text() == "no result yet"
    assert panel.ui.applyButton.isEnabled()
    panel.picture("register_start")


def test_apply_waits_for_what_is_missing_and_says_it(panel):
    panel.node.inputVolume = None
    assert not panel.ui.applyButton.isEnabled()
    assert "volume" in panel.ui.applyButton.toolTip()
    panel.node.inputVolume = volume()
    panel.node.startFrom = StartFrom.LANDMARKS
    assert not panel.ui.applyButton.isEnabled()
    assert "landmarks" in panel.ui.applyButton.toolTip()


def test_apply_turns_into_cancel_and_back(panel):
    count = slicer.mrmlScene.GetNumberOfNodes()
    panel.will(steps=10**6)
    panel.ui.applyButton.click()
    assert panel.ui.applyButton.text() == "Cancel"
    assert not panel.ui.inputsButton.isEnabled()
    panel.settle()
    assert panel.ui.stageLabel.text() == "Searching"
    assert panel.ui.similarityLabel.text().startswith("similarity")
    panel.picture("register_running")
    panel.ui.applyButton.click()
    assert panel.ui.applyButton.text() == "Cancelling..."
    assert not panel.ui.applyButton.isEnabled()
    panel.finish()
    assert panel.ui.applyButton.text() == "Apply"
    assert panel.ui.inputsButton.isEnabled()
    assert panel.ui.progressBar.value() == 0
    assert slicer.mrmlScene.GetNumberOfNodes() == count
    assert panel.status == ""


def test_a_trusted_result_is_accepted_and_undone_with_one_click_each(panel):
    was = toWorld(volume(), (1, 2, 3))
    panel.register()
    assert panel.ui.verdictLabel.text() == "Trusted"
    assert panel.ui.reasonsLabel.text() == "It fits."
    assert "0.8 mm" in panel.ui.errorLabel.text()
    assert panel.ui.resultLabel.text() == "MRBrain to ultrasound"
    np.testing.assert_allclose(toWorld(volume(), (1, 2, 3)), was)
    panel.picture("register_trusted")
    panel.ui.acceptButton.click()
    np.testing.assert_allclose(toWorld(volume(), (1, 2, 3)), (8, 21, 33), atol=1e-9)
    assert not panel.ui.acceptButton.isEnabled()
    panel.ui.undoButton.click()
    np.testing.assert_allclose(toWorld(volume(), (1, 2, 3)), was)
    assert panel.ui.acceptButton.isEnabled()
    assert not panel.ui.undoButton.isEnabled()


def test_accept_says_what_it_does_not_move(panel):
    marks = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", "tumour")
    marks.SetAndObserveTransformNodeID(volume().GetTransformNodeID())
    panel.register()
    assert "Only the volume moves" in panel.ui.acceptButton.toolTip()
    panel.ui.acceptButton.click()
    assert "('tumour') must be put under 'MRBrain to ultrasound' too." in panel.status
    marks.SetAndObserveTransformNodeID(volume().GetTransformNodeID())
    panel.ui.undoButton.click()
    assert "what still hangs under 'MRBrain to ultrasound' ('tumour')" in panel.status


def test_an_edited_volume_is_not_accepted(panel):
    panel.register()
    was = volume().GetTransformNodeID()
    slicer.util.arrayFromVolume(volume())[1, 2, 3] += 1
    panel.ui.acceptButton.click()
    assert panel.status == "The volume 'MRBrain' has been changed since it was registered; register again."
    assert volume().GetTransformNodeID() == was


def test_a_calibration_that_is_not_used_is_said(panel):
    panel.node.ultrasound = addBrowser(
        imageSequence([frameArray(k, 48, 64) for k in range(3)]),
        poseSequence([rotation(0, 5 * k, 0, (2 * k + 1, 0, 0)) for k in range(3)], "q", "ImageToReference"),
    )
    panel.node.imageToProbe = addTransform(rotation(), name="Spare")
    panel.register()
    assert "The calibration 'Spare' was left out" in panel.ui.reasonsLabel.text()


def test_a_check_asks_once_more_and_repeats_the_reasons(panel, monkeypatch):
    asked, answers = [], [False, True]

    def confirm(text, windowTitle=None):
        asked.append(text)
        return answers[len(asked) - 1]

    monkeypatch.setattr(slicer.util, "confirmOkCancelDisplay", confirm, raising=False)
    panel.register(verdict="check", reasons=("One frame only.", "Weakest direction: left-right."))
    assert panel.ui.verdictLabel.text() == "Check"
    panel.picture("register_check")
    was = toWorld(volume(), (1, 2, 3))
    panel.ui.acceptButton.click()
    np.testing.assert_allclose(toWorld(volume(), (1, 2, 3)), was)
    panel.ui.acceptButton.click()
    np.testing.assert_allclose(toWorld(volume(), (1, 2, 3)), (8, 21, 33), atol=1e-9)
    assert len(asked) == 2
    assert "One frame only.\nWeakest direction: left-right." in asked[1]


def test_a_rejected_result_offers_no_accept(panel):
    panel.register(verdict="rejected", reasons=("The ultrasound shows something else.",))
    assert panel.ui.verdictLabel.text() == "Rejected"
    assert not panel.ui.acceptButton.isVisible()
    assert panel.ui.errorLabel.text() == "not known (verdict calibrated on simulated sweeps)"
    assert panel.ui.resultLabel.text() == "none"
    panel.picture("register_rejected")
    panel.register()
    assert panel.ui.acceptButton.isVisible()


def test_bad_input_is_said_in_the_panel(panel):
    panel.node.ultrasound = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    panel.ui.applyButton.click()
    assert panel.status == "The ultrasound image 'Nothing' is empty; choose another."
    assert panel.logic.state is RunState.IDLE


def test_the_overlay_follows_the_panel_and_the_browser(panel):
    panel.register()
    composite = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSliceCompositeNode")
    panel.ui.fadeSlider.setValue(0.25)
    assert composite.GetForegroundOpacity() == pytest.approx(0.25)
    panel.ui.overlayModeComboBox.setCurrentIndex(list(OverlayMode).index(OverlayMode.CHECKERBOARD))
    assert composite.GetForegroundOpacity() == 1.0
    assert panel.ui.checkerSlider.isVisible()
    assert not panel.ui.fadeSlider.isVisible()
    panel.ui.shownPoseComboBox.setCurrentIndex(list(ShownPose).index(ShownPose.BEFORE))
    assert panel.node.shownPose is ShownPose.BEFORE
    panel.node.ultrasound.SetSelectedItemNumber(2)
    assert panel.ui.frameSpinBox.value() == 2
    frame = slicer.mrmlScene.GetNodeByID(composite.GetBackgroundVolumeID())
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(frame)[0], frameArray(2, 48, 64))
    panel.ui.overlayModeComboBox.setCurrentIndex(list(OverlayMode).index(OverlayMode.OFF))
    assert composite.GetBackgroundVolumeID() is None


def test_a_registration_goes_on_while_another_module_is_open(panel):
    panel.will(steps=3)
    panel.ui.applyButton.click()
    panel.widget.exit()
    panel.finish()
    panel.widget.enter()
    assert panel.ui.verdictLabel.text() == "Trusted"


def test_closing_the_scene_while_it_runs_is_said(panel):
    panel.will(steps=10**6)
    panel.ui.applyButton.click()
    panel.settle()
    slicer.mrmlScene.Clear(0)
    assert panel.status == "The registration has stopped: the scene was closed."
    assert panel.logic.state is RunState.IDLE
    assert panel.node is not None
    assert panel.node.inputVolume is None


def test_curve_and_report_are_shown_in_the_layout(panel, monkeypatch):
    shown = []
    plots = SimpleNamespace(logic=lambda: SimpleNamespace(ShowChartInLayout=shown.append))
    tables = SimpleNamespace(logic=lambda: SimpleNamespace(GetLayoutWithTable=lambda layout: layout + 1))
    monkeypatch.setattr(slicer, "modules", SimpleNamespace(plots=plots, tables=tables), raising=False)
    layout = SimpleNamespace(layout=3, setLayout=shown.append)
    selection = SimpleNamespace(SetActiveTableID=shown.append)
    application = SimpleNamespace(GetSelectionNode=lambda: selection, PropagateTableSelection=lambda: None)
    monkeypatch.setattr(slicer.app, "layoutManager", lambda: layout, raising=False)
    monkeypatch.setattr(slicer.app, "applicationLogic", lambda: application, raising=False)
    panel.register()
    panel.ui.showCurveButton.click()
    panel.ui.showTableButton.click()
    assert shown == [panel.node.curveChart, 4, panel.node.resultTable.GetID()]


def test_loading_a_sweep_chooses_it(panel, monkeypatch, tmp_path):
    import qt
    from diffus.sweep.sweep import TrackedSweep, write_sweep

    path = tmp_path / "new.igs.mha"
    poses = np.stack([rotation(0, 0, 0, (k, 0, 0)) for k in range(1, 4)])
    write_sweep(TrackedSweep.from_arrays(np.stack([frameArray(k) for k in range(3)]), poses), path)
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileName", lambda *arguments: (str(path), ""))
    panel.ui.loadSweepButton.click()
    assert panel.node.ultrasound.GetName() == "new"
    assert panel.status.startswith("3 of 3 frames")


def test_cleanup_leaves_no_observer(panel):
    panel.register()
    panel.widget.cleanup()
    scene = slicer.mrmlScene
    assert not scene.HasObserver(scene.StartCloseEvent)
    assert not panel.node
    panel.widget.setup()


def test_the_modules_logic_uses_the_event_loop(panel):
    assert panel.logic.schedule is runSoon
