"""The parameter node of the module: every choice lives in the scene and comes back with it.

Imported only where Slicer's parameterNodeWrapper exists; everything else reads the node by attribute.
"""

from typing import Annotated, Union

import slicer
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper

from ..kinds import MediumKind
from .parameters import (
    RANGES,
    CompareMode,
    EchoModel,
    ExportFormat,
    ImageSettings,
    ProbePreset,
    ProbeSettings,
    ProbeType,
)

_PROBE, _IMAGE = ProbeSettings(), ImageSettings()


def _range(name: str) -> WithinRange:
    return WithinRange(*RANGES[name])


@parameterNodeWrapper
class RenderParameterNode:
    """Inputs, probe, image, live and comparison; units stand in the names.

    Defaults: `ProbeSettings` and `ImageSettings`.
    """

    # The wrapper wants typing.Union with None last, not the bar notation.
    inputVolume: Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLSegmentationNode, None]  # noqa: UP007
    kind: MediumKind = MediumKind.AUTO
    mask: Union[slicer.vtkMRMLLabelMapVolumeNode, slicer.vtkMRMLSegmentationNode, None]  # noqa: UP007
    realImage: Union[slicer.vtkMRMLScalarVolumeNode, slicer.vtkMRMLVectorVolumeNode, None]  # noqa: UP007
    probeTransform: slicer.vtkMRMLTransformNode
    sliceView: slicer.vtkMRMLSliceNode
    outputSlice: slicer.vtkMRMLScalarVolumeNode
    fanModel: slicer.vtkMRMLModelNode
    skinPoint: slicer.vtkMRMLMarkupsFiducialNode

    preset: ProbePreset = ProbePreset.CRANIOTOMY_CONVEX
    probeType: ProbeType = _PROBE.probeType
    frequencyMhz: Annotated[float, _range("frequencyMhz")] = _PROBE.frequencyMhz
    depthMm: Annotated[float, _range("depthMm")] = _PROBE.depthMm
    fovDeg: Annotated[float, _range("fovDeg")] = _PROBE.fovDeg
    radiusMm: Annotated[float, _range("radiusMm")] = _PROBE.radiusMm
    widthMm: Annotated[float, _range("widthMm")] = _PROBE.widthMm
    focusMm: Annotated[float, _range("focusMm")] = _PROBE.focusMm
    fNumber: Annotated[float, _range("fNumber")] = _PROBE.fNumber
    transmitFNumber: Annotated[float, _range("transmitFNumber")] = _PROBE.transmitFNumber
    elevationMm: Annotated[float, _range("elevationMm")] = _PROBE.elevationMm
    rays: Annotated[int, _range("rays")] = _PROBE.rays
    samples: Annotated[int, _range("samples")] = _PROBE.samples
    elevationLayers: Annotated[int, _range("elevationLayers")] = _PROBE.elevationLayers
    raysPerLine: Annotated[int, _range("raysPerLine")] = _PROBE.raysPerLine

    echoModel: EchoModel = _IMAGE.echoModel
    gainDb: Annotated[float, _range("gainDb")] = _IMAGE.gainDb
    dynamicRangeDb: Annotated[float, _range("dynamicRangeDb")] = _IMAGE.dynamicRangeDb
    automaticTgc: bool = _IMAGE.automaticTgc
    tgcDbPerCm: Annotated[float, _range("tgcDbPerCm")] = _IMAGE.tgcDbPerCm
    speckle: bool = _IMAGE.speckle
    noise: bool = _IMAGE.noise
    noiseDb: Annotated[float, _range("noiseDb")] = _IMAGE.noiseDb
    reflectionDb: Annotated[float, _range("reflectionDb")] = _IMAGE.reflectionDb
    specularExponent: Annotated[float, _range("specularExponent")] = _IMAGE.specularExponent
    startDepthMm: Annotated[float, _range("startDepthMm")] = _IMAGE.startDepthMm
    seed: Annotated[int, _range("seed")] = _IMAGE.seed

    live: bool = False
    automaticQuality: bool = True
    driveSliceView: bool = True
    showFan: bool = True

    compare: bool = False
    compareView: slicer.vtkMRMLSliceNode
    compareMode: CompareMode = CompareMode.BLENDED
    compareFade: Annotated[float, _range("compareFade")] = 0.5
    comparedSlice: slicer.vtkMRMLScalarVolumeNode
    comparedPair: slicer.vtkMRMLScalarVolumeNode

    exportBrowser: slicer.vtkMRMLSequenceBrowserNode
    exportFormat: ExportFormat = ExportFormat.NRRD
    exportPath: str = ""
    exportPatient: bool = False
