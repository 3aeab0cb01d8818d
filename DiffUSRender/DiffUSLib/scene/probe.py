"""The probe as a transform node: made, and put onto the patient."""

from __future__ import annotations

import numpy as np
import slicer

from ..errors import RenderError
from ..i18n import _
from .surface import BodySurface
from .transforms import fromVtk, isLinearToWorld, nodeToWorld, toVtk

RIGHT, ANTERIOR = np.array([1.0, 0.0, 0.0]), np.array([0.0, 1.0, 0.0])


def createProbe(scene, name: str | None = None):
    """A new linear transform node with handles that move and turn it, never scale it."""
    node = scene.AddNewNodeByClass(
        "vtkMRMLLinearTransformNode", scene.GenerateUniqueName(name or _("Ultrasound probe"))
    )
    node.CreateDefaultDisplayNodes()
    display = node.GetDisplayNode()
    display.SetEditorVisibility(True)
    display.SetEditorScalingEnabled(False)
    display.SetEditorScalingSliceEnabled(False)
    return node


def placeAtSliceView(probeNode, sliceNode, surface: BodySurface | None) -> None:
    """Puts the probe into the plane of a slice view, looking down the screen, x to the right of the screen.

    Args:
        surface: the body, on whose skin above the view's centre the face comes to lie; without one (None), the face
            lies on the view's centre.

    Raises:
        RenderError: see `requirePlaceable`.
    """
    requirePlaceable(probeNode)
    sliceToWorld = fromVtk(sliceNode.GetSliceToRAS())
    lateral, up = (column / np.linalg.norm(column) for column in sliceToWorld[:3, :2].T)
    centre = sliceToWorld[:3, 3]
    origin = surface.outermost(centre, up) if surface else None
    setProbePose(probeNode, poseFromAxes(centre if origin is None else origin, -up, lateral))


def placeOnSkin(probeNode, point: np.ndarray, surface: BodySurface) -> None:
    """Puts the probe's face onto the skin nearest to a point, looking into the body along the inward normal.

    Args:
        point: (3,), world mm.

    Raises:
        RenderError: no skin is near; or see `requirePlaceable`.
    """
    requirePlaceable(probeNode)
    depth = surface.inwardDirection(np.asarray(point, dtype=float))
    contact = surface.snap(np.asarray(point, dtype=float), depth)
    if contact is None:
        raise RenderError(_("There is no skin near this point: click on the patient's surface."))
    depth = surface.inwardDirection(contact)
    setProbePose(probeNode, poseFromAxes(contact, depth, RIGHT))


def poseFromAxes(origin: np.ndarray, depth: np.ndarray, lateral: np.ndarray) -> np.ndarray:
    """The right-handed pose with y along `depth` and x as near to `lateral` as that allows.

    Args:
        origin: (3,), world mm.
        depth: (3,), of any length.
        lateral: (3,), of any length; where it is nearly along `depth`, another axis of the patient is taken.

    Returns:
        (4, 4), probe to world.
    """
    y = depth / np.linalg.norm(depth)
    if abs(y @ lateral) > 0.7 * np.linalg.norm(lateral):  # from the side: an axial image, not a slanted one
        lateral = ANTERIOR if abs(y @ ANTERIOR) < 0.7 else RIGHT
    x = lateral - (lateral @ y) * y
    x = x / np.linalg.norm(x)
    pose = np.eye(4)
    pose[:3] = np.column_stack([x, y, np.cross(x, y), origin])
    return pose


def setProbePose(probeNode, probeToWorld: np.ndarray) -> None:
    """Sets the probe's pose in the world, whatever linear transforms it hangs under."""
    parentToWorld = nodeToWorld(probeNode.GetParentTransformNode())
    probeNode.SetMatrixTransformToParent(toVtk(np.linalg.inv(parentToWorld) @ probeToWorld))


def requirePlaceable(probeNode) -> None:
    """Checks that the probe is a transform that may be set by hand.

    Raises:
        RenderError: it or a transform above it is nonlinear, or the one above is singular.
    """
    parent = probeNode.GetParentTransformNode()
    if not probeNode.IsLinear() or not isLinearToWorld(parent):
        raise RenderError(
            _("The probe '{name}' is moved by a nonlinear transform and cannot be placed; create a new probe.").format(
                name=probeNode.GetName()
            )
        )
    if parent is not None and abs(np.linalg.det(nodeToWorld(parent)[:3, :3])) < 1e-6:
        raise RenderError(
            _("The transform above the probe '{name}' is singular; remove it first.").format(name=probeNode.GetName())
        )


class SkinPointPicker:
    """Lets the user click one point in any view, then calls `onPicked(point)` with its world position in mm."""

    def __init__(self, onPicked, onEnded=lambda: None) -> None:
        self._onPicked, self._onEnded = onPicked, onEnded
        self._markups = None
        self._tags: list[tuple[object, int]] = []

    @property
    def active(self) -> bool:
        return bool(self._tags)

    def start(self, scene, markupsNode) -> None:
        """Turns the mouse into place mode for `markupsNode` until a point is set."""
        self.stop()
        self._markups = markupsNode
        markupsNode.RemoveAllControlPoints()
        markupsNode.GetDisplayNode().SetVisibility(True)
        self._observe(markupsNode, slicer.vtkMRMLMarkupsNode.PointPositionDefinedEvent, self._onPoint)
        selection = _singleton(scene, "vtkMRMLSelectionNode")
        selection.SetReferenceActivePlaceNodeClassName(markupsNode.GetClassName())
        selection.SetActivePlaceNodeID(markupsNode.GetID())
        interaction = _singleton(scene, "vtkMRMLInteractionNode")
        interaction.SetPlaceModePersistence(0)
        interaction.SetCurrentInteractionMode(interaction.Place)
        self._observe(interaction, interaction.InteractionModeChangedEvent, self._onMode)

    def stop(self) -> None:
        """Forgets the click that has not come, and every observer."""
        for node, tag in self._tags:
            node.RemoveObserver(tag)
        self._tags.clear()
        self._markups = None

    def _observe(self, node, event, callback) -> None:
        self._tags.append((node, node.AddObserver(event, callback)))

    def _onPoint(self, caller, event) -> None:
        point = np.zeros(3)
        caller.GetNthControlPointPositionWorld(caller.GetNumberOfControlPoints() - 1, point)
        self.stop()
        # The view's widget is still at work on the point: it is hidden here and removed before the next click.
        caller.GetDisplayNode().SetVisibility(False)
        self._onPicked(point)
        self._onEnded()

    def _onMode(self, caller, event) -> None:
        # The point is defined before place mode ends: none means that the user has changed their mind.
        if caller.GetCurrentInteractionMode() != caller.Place and self._markups.GetNumberOfDefinedControlPoints() == 0:
            self.stop()
            self._onEnded()


def createSkinPoint(scene):
    """A hidden-from-lists markups node for the click on the skin."""
    node = scene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode", scene.GenerateUniqueName(_("Skin contact")))
    node.CreateDefaultDisplayNodes()
    node.SetHideFromEditors(True)
    node.SetSaveWithScene(False)
    return node


def _singleton(scene, className: str):
    return scene.GetFirstNodeByClass(className) or scene.AddNewNodeByClass(className)
