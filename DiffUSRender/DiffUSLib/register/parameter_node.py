"""The parameter node of the module: every choice and the last result live in the scene and come back with it.

Imported only where Slicer's parameterNodeWrapper exists; everything else reads the node by attribute.
"""

from typing import Annotated, Union

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ..declared import declaredParameters
from ..kinds import MediumKind
from .parameters import RANGES, OverlayMode, RegisterParameters, ShownPose, StartFrom, VolumeSource


@parameterNodeWrapper
@declaredParameters(RANGES, RegisterParameters)
class RegisterParameterNode:
    """Inputs, start, overlay, and the last result; units stand in the names.

    The search is the attributes of `RegisterParameters`.
    """

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

    sliceView: slicer.vtkMRMLSliceNode
    overlayMode: OverlayMode = OverlayMode.FADE
    shownPose: ShownPose = ShownPose.AFTER
    fade: Annotated[float, WithinRange(*RANGES["fade"])] = 0.5
    checkerMm: Annotated[float, WithinRange(*RANGES["checkerMm"])] = 8.0
    frameNumber: Annotated[int, WithinRange(*RANGES["frameNumber"])] = -1

    resultTransform: slicer.vtkMRMLLinearTransformNode
    resultTable: slicer.vtkMRMLTableNode
    curveChart: slicer.vtkMRMLPlotChartNode
    acceptedTransform: slicer.vtkMRMLLinearTransformNode
    previousTransform: slicer.vtkMRMLTransformNode
    hadPrevious: bool = False
    report: str = ""
