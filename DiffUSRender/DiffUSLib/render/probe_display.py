"""What the scene shows of the probe: its fan, a slice view that follows it, and the patient around both in 3-D."""

from __future__ import annotations

from .. import engine
from ..scene.fan_model import createFanModel, updateFanModel
from ..scene.patient_view import PatientView
from ..scene.slice_views import SliceViewDriver
from ..torch_support import isTorchInstalled, requireTorch
from .parameters import ParameterReader


class ProbeDisplay:
    """Keeps fan, slice view and patient as a parameter node says; without PyTorch neither fan nor view."""

    def __init__(self, reader: ParameterReader) -> None:
        self._read = reader
        self._driver = SliceViewDriver()
        self._patient = PatientView()
        self._shownFan: tuple | None = None
        self._driven: tuple | None = None

    def updateFan(self, parameterNode) -> None:
        """Draws, reshapes or hides the fan."""
        probe, model = parameterNode.probeTransform, parameterNode.fanModel
        if model is not None:
            model.SetDisplayVisibility(bool(parameterNode.showFan and probe))
        if probe is None or not parameterNode.showFan or not isTorchInstalled():
            return
        shape = self._read(parameterNode).probe
        if model is not None and self._shownFan == (model.GetID(), probe.GetID(), shape):
            return
        outline = _outline(shape)
        if model is None:
            model = createFanModel(probe.GetScene(), probe)
            parameterNode.fanModel = model
        updateFanModel(model, outline, probe)
        self._shownFan = (model.GetID(), probe.GetID(), shape)

    def updateDriving(self, parameterNode, otherView=None) -> None:
        """Lets the chosen slice view follow the probe once there is a slice with pixels, or gives it back.

        Args:
            otherView: a view that shows something else now, or None.
        """
        view, probe, output = parameterNode.sliceView, parameterNode.probeTransform, parameterNode.outputSlice
        ready = None not in (view, probe, output) and output.GetImageData() is not None
        if not (parameterNode.driveSliceView and ready) or view is otherView or not isTorchInstalled():
            self.stopDriving()
            return
        shape = self._read(parameterNode).probe
        driven = (view.GetID(), probe.GetID(), output.GetID(), shape, parameterNode.sliceIn3D)
        if driven != self._driven:
            corners = _outline(shape)
            low, high = corners.min(0), corners.max(0)
            self._driver.start(view, probe, output, high - low, (low + high) / 2, parameterNode.sliceIn3D)
            self._driven = driven

    def updatePatient(self, parameterNode) -> None:
        """Shows the patient in 3-D, or not."""
        self._patient.update(parameterNode.inputVolume, parameterNode.kind, parameterNode.patientIn3D)

    def takeClicks(self, taken: bool) -> None:
        """Whether a click in 3-D meets the patient's surface, or what lies within it."""
        self._patient.takeClicks(taken)

    def stopDriving(self) -> None:
        """Gives the slice view back as it was before it followed the probe."""
        self._driver.stop()
        self._driven = None

    def forgetScene(self) -> None:
        """Gives the views back, and knows no fan any more."""
        self.stopDriving()
        self._patient.hide()
        self._shownFan = None


def _outline(shape):
    """The fan's outline of probe settings, (n, 2) mm in the probe's plane."""
    requireTorch()
    return engine.fanOutline(engine.buildProbe(shape))
