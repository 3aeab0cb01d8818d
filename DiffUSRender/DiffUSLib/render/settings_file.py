"""Probe, image and tissue table as a file, which the commands and `fit` write and read too."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import slicer.util
from diffus.render.settings import make_settings

from ..declared import sceneValues
from ..engine import buildProbe, engineErrors, probeSettings
from ..errors import RenderError
from ..i18n import _
from ..kinds import TissueTable
from ..torch_support import requireTorch
from .parameters import (
    IMAGE,
    IMAGE_ENUMS,
    ImagePreset,
    ProbePreset,
    ProbeSettings,
    imageValues,
    presetLook,
    readParameters,
    readProbe,
    requireAllowed,
    writeProbe,
)

if TYPE_CHECKING:
    from diffus.render.settings import RenderSettings


def saveSettings(parameterNode, path: str) -> None:
    """Writes the settings of a parameter node as JSON; raises RenderError, and leaves no file, where that fails."""
    requireTorch()
    from diffus.io.atomic import replacing, require_writable
    from diffus.probe.specification import probe_to_dict
    from diffus.render.settings import RenderSettings, settings_to_dict

    parameters = readParameters(parameterNode)
    probe = probe_to_dict(buildProbe(parameters.probe))
    with engineErrors():
        settings = settings_to_dict(RenderSettings(**imageValues(parameters.image)))
        held = {"probe": probe, "settings": settings, "tissues": parameterNode.tissueTable.value}
        with replacing(require_writable(path, (".json",))) as temporary:
            temporary.write_text(json.dumps(held, indent=2) + "\n", encoding="utf-8")


def loadSettings(parameterNode, path: str) -> None:
    """Writes what a file holds into a parameter node: all settings of the image, and probe and tissue table if named.

    Raises:
        RenderError: for a file that is none, or a value that the panel does not allow; nothing is changed then.
    """
    requireTorch()
    settings, probe, tissues = _read(path, readProbe(parameterNode))
    values = sceneValues(vars(settings), IMAGE, IMAGE_ENUMS) | {"paperArtefacts": settings.artefacts is not None}
    requireAllowed(values)
    with slicer.util.NodeModify(parameterNode.parameterNode):  # no picture of half of the settings
        if probe is not None:
            writeProbe(parameterNode, probe)
            parameterNode.preset = ProbePreset.CUSTOM
        for name, value in values.items():
            setattr(parameterNode, name, value)
        parameterNode.imagePreset = _presetOf(values)
        if tissues is not None:
            parameterNode.tissueTable = tissues


def _read(path: str, present: ProbeSettings) -> tuple[RenderSettings, ProbeSettings | None, TissueTable | None]:
    """What a file holds: settings of the frame, and probe and tissue table where it has them.

    Args:
        present: what the probe's type does not have stays as here.
    """
    from diffus.io.tables import read_settings, read_tissues_of_settings
    from diffus.probe.specification import read_probe_json

    with engineErrors():
        settings, name = make_settings(**read_settings(path)), read_tissues_of_settings(path)
        hasProbe = "probe" in json.loads(Path(path).read_text(encoding="utf-8"))
        probe = probeSettings(read_probe_json(path), present) if hasProbe else None
    known = {table.value: table for table in TissueTable}
    if name is not None and name not in known:
        raise RenderError(_("The file names a tissue table '{name}', which there is none of here.").format(name=name))
    return settings, probe, known.get(name)


def _presetOf(values: dict[str, object]) -> ImagePreset:
    """The preset that has these values, or CUSTOM."""
    known = (preset for preset in ImagePreset if preset is not ImagePreset.CUSTOM)
    return next((preset for preset in known if presetLook(preset).items() <= values.items()), ImagePreset.CUSTOM)
