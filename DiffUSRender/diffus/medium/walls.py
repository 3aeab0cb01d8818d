"""Walls between tissues: how bright the thin membrane is that no voxel can hold."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from .sheets import decibels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float
    from torch import Tensor

    from .tissue import Tissue

# Amplitude at normal incidence, dB relative to white-matter speckle. Hand-set to what liver, kidney and heart frames
# show: fascia and capsules a little above the organ's speckle, walls of fluid brighter, diaphragm and pleura brightest.
# Bone, metal and gas have none: the step of their impedance is echo enough, as is that of a lung against everything
# but the diaphragm.
FASCIA_DB, CAPSULE_DB, WALL_DB, SEROSA_DB = 9.0, 7.0, 9.0, 6.0
ENDOCARDIUM_DB, DIAPHRAGM_DB, EPENDYMA_DB = 6.0, 14.0, 11.0

_KIND_OF = {
    "fat": "fat",
    "breast": "fat",
    "muscle": "muscle",
    "connective tissue": "muscle",
    "lung": "lung",
    "heart muscle": "heart",
    "bowel": "bowel",
}
_KIND_OF |= dict.fromkeys(("blood", "bile", "urine", "cyst", "fluid", "water"), "fluid")
_KIND_OF |= dict.fromkeys(
    ("liver", "spleen", "kidney", "pancreas", "gland", "prostate", "uterus", "testis", "tumour", "soft tissue"), "organ"
)
_KIND_OF |= dict.fromkeys(("brain", "grey matter", "white matter", "nerve", "oedema"), "brain")
_KIND_OF |= {"csf": "ventricle"}
REST = "rest"  # what the labels leave to the medium under them

_LEVEL_DB = {
    ("fat", "muscle"): FASCIA_DB,
    ("fat", "organ"): CAPSULE_DB,
    ("fat", "fluid"): WALL_DB,
    ("muscle", "organ"): CAPSULE_DB,
    ("muscle", "fluid"): WALL_DB,
    ("lung", "organ"): DIAPHRAGM_DB,
    ("heart", "lung"): DIAPHRAGM_DB,
    ("lung", "muscle"): DIAPHRAGM_DB,
    ("fluid", "organ"): WALL_DB,
    ("fluid", "heart"): ENDOCARDIUM_DB,
    ("bowel", "fat"): SEROSA_DB,
    ("bowel", "fluid"): WALL_DB,
    ("bowel", "muscle"): SEROSA_DB,
    ("bowel", "organ"): CAPSULE_DB,
    ("fat", "heart"): CAPSULE_DB,
    ("heart", "organ"): CAPSULE_DB,
    ("brain", "ventricle"): EPENDYMA_DB,
    ("organ", "organ"): CAPSULE_DB,
    ("organ", REST): CAPSULE_DB,
    ("fluid", REST): WALL_DB,
    ("bowel", REST): SEROSA_DB,
    ("heart", REST): CAPSULE_DB,
}


def wall_levels(tissues: Sequence[Tissue | None], rest: int | None = None) -> Float[Tensor, "n n"]:
    """The level of the wall between every two tissues, a linear amplitude relative to white-matter speckle; 0 for none.

    Args:
        tissues: None for gel, which has no wall.
        rest: the number of the one that stands for another medium.
    """
    kinds = [None if tissue is None else _KIND_OF.get(tissue.name) for tissue in tissues]
    if rest is not None:
        kinds[rest] = REST
    levels = torch.zeros(len(kinds), len(kinds))
    for a, one in enumerate(kinds):
        for b, other in enumerate(kinds):
            level = _LEVEL_DB.get((one, other), _LEVEL_DB.get((other, one)))
            if a != b and level is not None:
                levels[a, b] = decibels(level)
    return levels
