"""The parameter node of the module: every choice lives in the scene and comes back with it.

Imported only where Slicer's parameterNodeWrapper exists; everything else reads the node by attribute.
"""

from typing import Annotated, Union

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ..declared import declaredParameters
from ..kinds import Device, MediumKind, PatientDisplay, TissueTable
from .parameters import (
    RANGES,
    AModeAxis,
    CompareMode,
    ExportFormat,
    ImagePreset,
    ImageSettings,
    ProbePreset,
    ProbeSettings,
)


@parameterNodeWrapper
@declaredParameters(RANGES, ProbeSettings, ImageSettings)
class RenderParameterNode:
    """Inputs, probe, image, live and comparison; units stand in the names.

    Probe and image are the attributes of `ProbeSettings` and `ImageSettings`.
    """

    # The wrapper wants typing.Union with None last, not the bar notation.
    inputVolume: Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode, None]  # noqa: UP007
    kind: MediumKind = MediumKind.AUTO
    mask: Union[slicer.vtkMRMLLabelMapVolumeNode, slicer.vtkMRMLSegmentationNode, None]  # noqa: UP007
    addedSegmentation: Union[slicer.vtkMRMLSegmentationNode, slicer.vtkMRMLLabelMapVolumeNode, None]  # noqa: UP007
    tissueTable: TissueTable = TissueTable.DIFFUS
    realImage: Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLVectorVolumeNode, None]  # noqa: UP007
    probeTransform: slicer.vtkMRMLTransformNode
    sliceView: slicer.vtkMRMLSliceNode
    outputSlice: slicer.vtkMRMLScalarVolumeNode
    fanModel: slicer.vtkMRMLModelNode
    skinPoint: slicer.vtkMRMLMarkupsFiducialNode

    preset: ProbePreset = ProbePreset.CRANIOTOMY_CONVEX
    imagePreset: ImagePreset = ImagePreset.DEFAULT
    device: Device = Device.AUTO

    live: bool = False
    automaticQuality: bool = True
    driveSliceView: bool = True
    sliceIn3D: bool = True
    showFan: bool = True
    patientIn3D: PatientDisplay = PatientDisplay.HIDDEN

    compare: bool = False
    compareView: slicer.vtkMRMLSliceNode
    compareMode: CompareMode = CompareMode.BLENDED
    compareFade: Annotated[float, WithinRange(*RANGES["compareFade"])] = 0.5
    comparedSlice: slicer.vtkMRMLScalarVolumeNode
    comparedPair: slicer.vtkMRMLScalarVolumeNode

    aMode: bool = False
    aModeLateralMm: Annotated[float, WithinRange(*RANGES["aModeLateralMm"])] = 0.0
    aModeAxis: AModeAxis = AModeAxis.DEPTH
    aModeChart: slicer.vtkMRMLPlotChartNode
    aModeSeries: slicer.vtkMRMLPlotSeriesNode
    aModeTable: slicer.vtkMRMLTableNode

    exportBrowser: slicer.vtkMRMLSequenceBrowserNode
    exportFormat: ExportFormat = ExportFormat.NRRD
    exportPath: str = ""
    exportPatient: bool = False
