"""Scenes with tracked ultrasound, and a registration that does as it is told."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import slicer
import slicer.util
import vtk
from DiffUSLib.scene.transforms import toVtk


def frameArray(number: int, rows: int = 24, columns: int = 32) -> np.ndarray:
    """A frame that tells its number: uint8, a wedge of texture."""
    r, c = np.indices((rows, columns))
    return (40 + 5 * number + 3 * ((r * 7 + c * 3) % 11)).astype(np.uint8)


def addSequence(nodes, name: str, source: str | None = None, times=None):
    """A sequence node with copies of these nodes."""
    sequence = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    sequence.SetIndexName("time")
    sequence.SetIndexUnit("s")
    if source:
        sequence.SetAttribute("Sequences.Source", source)
    for n, node in enumerate(nodes):
        sequence.SetDataNodeAtValue(node, f"{times[n] if times else 0.1 * n:.3f}")
    return sequence


def imageSequence(arrays, ijkToRas=None, name: str = "Image"):
    """A sequence of flat volumes."""
    nodes = []
    for array in arrays:
        colour = array.ndim == 3
        node = slicer.vtkMRMLVectorVolumeNode() if colour else slicer.vtkMRMLScalarVolumeNode()
        slicer.util.updateVolumeFromArray(node, array[np.newaxis])
        node.SetIJKToRASMatrix(toVtk(np.eye(4) if ijkToRas is None else ijkToRas))
        nodes.append(node)
    return addSequence(nodes, name)


def poseSequence(matrices, name: str, source: str | None = None):
    """A sequence of linear transforms."""
    nodes = []
    for matrix in matrices:
        node = slicer.vtkMRMLLinearTransformNode()
        node.SetMatrixTransformToParent(toVtk(matrix))
        nodes.append(node)
    return addSequence(nodes, name, source)


def addBrowser(*sequences, name: str = "Sweep"):
    """A sequence browser that plays these sequences, the first as its master; it has made its proxies."""
    browser = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", name)
    browser.SetAndObserveMasterSequenceNodeID(sequences[0].GetID())
    for sequence in sequences[1:]:
        browser.AddSynchronizedSequenceNode(sequence)
    browser.SetSelectedItemNumber(0)
    return browser


def hang(node, *parents) -> None:
    """Puts `node` under the first of `parents`, that under the second, and so on."""
    for child, parent in zip((node, *parents), parents):
        child.SetAndObserveTransformNodeID(parent.GetID())


def toWorld(node, point) -> np.ndarray:
    """Where the scene says that a point of a node's own coordinates lies, (3,) world mm."""
    transform = vtk.vtkGeneralTransform()
    slicer.vtkMRMLTransformNode.GetTransformBetweenNodes(node.GetParentTransformNode(), None, transform)
    return np.array(transform.TransformPoint(point))


def pixelInWorld(volumeNode, column: float, row: float) -> np.ndarray:
    """Where the scene says that a pixel of a volume node lies, (3,) world mm."""
    matrix = vtk.vtkMatrix4x4()
    volumeNode.GetIJKToRASMatrix(matrix)
    return toWorld(volumeNode, matrix.MultiplyPoint((column, row, 0.0, 1.0))[:3])


def registerParameters(volume=None, ultrasound=None, **settings):
    """A parameter node of DiffUSRegister; settings by name."""
    from DiffUSLib.register.parameter_node import RegisterParameterNode

    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "DiffUSRegister")
    parameters = RegisterParameterNode(node)
    parameters.inputVolume, parameters.ultrasound = volume, ultrasound
    for name, value in settings.items():
        setattr(parameters, name, value)
    return parameters


def addView(name: str = "Red"):
    """A slice view with its layers, and the two nodes."""
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode", name)
    view.SetLayoutName(name)
    composite = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode", name)
    composite.SetLayoutName(name)
    return view, composite


def snapshot() -> tuple:
    """Everything in the scene that a cancelled registration must leave alone."""
    scene = slicer.mrmlScene
    scene.SetSaveToXMLString(1)
    scene.Commit()
    matrices = []
    for n in range(scene.GetNumberOfNodesByClass("vtkMRMLTransformNode")):
        matrix = vtk.vtkMatrix4x4()
        scene.GetNthNodeByClass(n, "vtkMRMLTransformNode").GetMatrixTransformToParent(matrix)
        matrices.append(slicer.util.arrayFromVTKMatrix(matrix).tolist())
    nodes = [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]
    return scene.GetSceneXMLString(), matrices, nodes


class FakeRegistration:
    """Goes from the first guess to `target` in some steps, and says what it is told to say."""

    def __init__(self, problem, parameters, target=None, verdict="trusted", reasons=("It fits.",), steps=4) -> None:
        self.problem, self.parameters = problem, parameters
        self.target = np.asarray(problem.initial if target is None else target, dtype=np.float64)
        self.verdict, self.reasons, self.steps = verdict, reasons, steps
        self.result = None

    def __iter__(self):
        for n in range(1, self.steps + 1):
            share = n / self.steps
            pose = self.target if n == self.steps else self.problem.initial
            yield SimpleNamespace(stage="searching", progress=share, similarity=share / 2, mri_to_reference=pose)
        report = {
            "verdict": self.verdict,
            "reasons": list(self.reasons),
            "expected_error_mm": None if self.verdict == "rejected" else 0.8,
            "expected_error_worst_mm": None if self.verdict == "rejected" else 1.9,
            "calibrated_on": "simulated sweeps",
            "similarity": 0.5,
            "seconds": 1.0,
            "frames_used": len(self.problem.sweep),
            "frames_skipped": self.problem.sweep.report.frames_skipped,
            "notes": list(self.problem.sweep.report.notes),
            "mri_to_reference": self.target.tolist(),
        }
        self.result = SimpleNamespace(report=lambda: report)


def fakeEngine(**settings):
    """What `RegisterLogic` takes as `buildRegistration`; the made ones are listed in its attribute `made`."""

    def build(problem, parameters):
        build.made.append(FakeRegistration(problem, parameters, **settings))
        return build.made[-1]

    build.made = []
    return build
