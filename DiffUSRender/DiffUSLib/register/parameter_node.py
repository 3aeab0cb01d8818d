"""The parameter node of the module: every choice and the last result live in the scene and come back with it.

Imported only where Slicer's parameterNodeWrapper exists; everything else reads the node by attribute.
"""

from typing import Annotated, Union

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ..kinds import MediumKind
from .parameters import RANGES, OverlayMode, RegisterParameters, ShownPose, StartFrom, VolumeSource

_DEFAULT = RegisterParameters()


def _range(name: str) -> WithinRange:
    return WithinRange(*RANGES[name])


@parameterNodeWrapper
class RegisterParameterNode:
    """Inputs, start, search, overlay, and the last result; units stand in the names."""

    # The wrapper wants typing.Union with None last, not the bar notation.
    inputVolume: Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode, None]  # noqa: UP007
    kind: MediumKind = MediumKind.AUTO
    volumeSource: VolumeSource = VolumeSource.RAW
    ultrasound: Union[  # noqa: UP007
        slicer.vtkMRMLSequenceBrowserNode, slicer.vtkMRMLSequenceNode, slicer.vtkMRMLScalarVolumeNode, None
    ]
    presentFrameOnly: bool = False
    poseSequence: slicer.vtkMRMLSequenceNode
    imageToProbe: slicer.vtkMRMLTransformNode

    startFrom: StartFrom = StartFrom.PRESENT
    initialTransform: slicer.vtkMRMLTransformNode
    volumeLandmarks: slicer.vtkMRMLMarkupsFiducialNode
    ultrasoundLandmarks: slicer.vtkMRMLMarkupsFiducialNode

    translationMm: Annotated[float, _range("translationMm")] = _DEFAULT.translationMm
    rotationDeg: Annotated[float, _range("rotationDeg")] = _DEFAULT.rotationDeg
    maximumFrames: Annotated[int, _range("maximumFrames")] = _DEFAULT.maximumFrames
    seed: Annotated[int, _range("seed")] = _DEFAULT.seed

    sliceView: slicer.vtkMRMLSliceNode
    overlayMode: OverlayMode = OverlayMode.FADE
    shownPose: ShownPose = ShownPose.AFTER
    fade: Annotated[float, _range("fade")] = 0.5
    checkerMm: Annotated[float, _range("checkerMm")] = 8.0
    frameNumber: Annotated[int, _range("frameNumber")] = -1

    resultTransform: slicer.vtkMRMLLinearTransformNode
    resultTable: slicer.vtkMRMLTableNode
    curveChart: slicer.vtkMRMLPlotChartNode
    acceptedTransform: slicer.vtkMRMLLinearTransformNode
    previousTransform: slicer.vtkMRMLTransformNode
    hadPrevious: bool = False
    report: str = ""
