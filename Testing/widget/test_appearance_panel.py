"""The section "Match appearance" of DiffUSRender's panel, on the real .ui file and the real scene."""

from __future__ import annotations

from unittest import mock

import headless
import pytest
import slicer

pytest.importorskip("PySide6.QtWidgets", reason="PySide6 is not installed: the panel is not tested")

from DiffUSLib.render import match as appearance
from DiffUSLib.render.parameters import ProbePreset, readParameters
from DiffUSLib.run import RunState
from headless.fixtures import addHead
from headless.match_fixtures import addRecording
from headless.panels import renderPanel
from headless.qt_widgets import processEvents


@pytest.fixture
def panel():
    """The module's widget as Slicer shows it, with a head and a recording of it; the match is short."""
    headless.newScene()
    head = addHead()
    image = addRecording(head, 4)
    with renderPanel("appearanceSection") as shown, mock.patch.multiple(appearance, STEPS=2, FITTED_FRAMES=1):
        shown.recorded = image
        yield shown


def finish(panel) -> str:
    for _ in range(400):
        if panel.logic.appearance.state is RunState.IDLE:
            return panel.ui.matchStatusLabel.text()
        processEvents(5)
    raise AssertionError("the match does not end")


def test_the_button_waits_for_a_real_image(panel):
    panel.ui.realImageSelector.setCurrentNode(None)
    assert not panel.ui.matchButton.isEnabled()
    assert "real ultrasound image" in panel.ui.matchButton.toolTip()
    assert not panel.ui.undoMatchButton.isEnabled()
    assert not panel.ui.matchProgressBar.isVisible()
    panel.ui.realImageSelector.setCurrentNode(panel.recorded)
    assert panel.ui.matchButton.isEnabled()
    assert "time gain" in panel.ui.matchButton.toolTip()


def test_a_match_shows_its_numbers_and_one_click_undoes_it(panel):
    panel.ui.realImageSelector.setCurrentNode(panel.recorded)
    before = readParameters(panel._parameterNode)
    panel.ui.matchButton.click()
    assert panel.ui.matchButton.text() == "Cancel"
    said = finish(panel)
    assert said.startswith("NCC of 1 held-out frames")
    assert panel.ui.matchButton.text() == "Match appearance to this sweep"
    assert not panel.ui.matchProgressBar.isVisible()
    after = readParameters(panel._parameterNode)
    assert after.image.gainDb < before.image.gainDb - 1
    assert panel.ui.gainSlider.value == pytest.approx(after.image.gainDb, abs=0.06)
    assert panel._parameterNode.preset is ProbePreset.CUSTOM
    assert panel.ui.undoMatchButton.isEnabled()
    panel.ui.undoMatchButton.click()
    assert readParameters(panel._parameterNode) == before
    assert panel.ui.matchStatusLabel.text() == "The match was undone."
    assert not panel.ui.undoMatchButton.isEnabled()


def test_cancel_changes_nothing(panel):
    panel.ui.realImageSelector.setCurrentNode(panel.recorded)
    before = readParameters(panel._parameterNode)
    panel.ui.matchButton.click()
    panel.ui.matchButton.click()
    assert finish(panel) == "The match was cancelled; nothing was changed."
    assert readParameters(panel._parameterNode) == before


def test_a_scene_that_closes_ends_the_match(panel):
    panel.ui.realImageSelector.setCurrentNode(panel.recorded)
    panel.ui.matchButton.click()
    slicer.mrmlScene.Clear()
    processEvents(5)
    assert panel.logic.appearance.state is RunState.IDLE
    assert not panel.logic.appearance.undoable
