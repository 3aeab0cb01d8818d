"""The acoustic maps that the sound is simulated in, as volumes in the scene."""

from __future__ import annotations

import slicer
import slicer.util

from ..i18n import _
from ..scene.transforms import toVtk
from ..scene.voxels import MediumCache
from .parameters import mediumInputs


def showAcousticMaps(parameterNode, media: MediumCache) -> list:
    """Adds impedance, attenuation, its exponent and scattering of the input as volumes beside it.

    Returns:
        The volume nodes.

    Raises:
        RenderError: for an input that cannot be a medium; nothing is added then.
    """
    volume = parameterNode.inputVolume
    medium = media.medium(*mediumInputs(parameterNode))
    maps, ijkToRas = medium.maps.detach().float().cpu().numpy(), medium.ijk_to_ras.numpy()
    names = (
        _("{name} impedance (MRayl)"),
        _("{name} attenuation (dB/cm at 1 MHz)"),
        _("{name} attenuation exponent"),
        _("{name} scattering (white matter is 1)"),
    )
    nodes, scene = [], volume.GetScene()
    for name, values in zip(names, maps):
        title = scene.GenerateUniqueName(name.format(name=volume.GetName()))
        node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", title)
        slicer.util.updateVolumeFromArray(node, values)
        node.SetIJKToRASMatrix(toVtk(ijkToRas))
        node.SetAndObserveTransformNodeID(volume.GetTransformNodeID())
        node.CreateDefaultDisplayNodes()
        nodes.append(node)
    return nodes
