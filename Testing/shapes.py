"""Shapes and types of the engine, checked while its tests run: jaxtyping's import hook with beartype.

The engine names jaxtyping under TYPE_CHECKING only, since Slicer does not bundle it; here these imports are made.
"""

from __future__ import annotations

import importlib
import pkgutil
import typing

# Imported before TYPE_CHECKING says yes: what these import for types only may be in circles.
OTHERS = ("torch", "numpy", "scipy.ndimage", "scipy.optimize", "scipy.spatial", "SimpleITK", "pydicom", "PIL.Image")
OTHERS += ("click", "rich.console", "rich.progress", "rich.table", "matplotlib.pyplot", "jaxtyping", "beartype.door")


# Dataclasses whose fields users give, as text or of any type, and that say themselves in words what is wrong.
CHECK_THEMSELVES = {"diffus.settings", "diffus.probe.probe", "diffus.render.settings", "diffus.medium.tissue"}


def typechecker(function):
    """beartype, with int for float as everywhere in Python."""
    from beartype import BeartypeConf, beartype

    if function.__name__ == "__init__" and function.__module__ in CHECK_THEMSELVES:
        return function
    return beartype(conf=BeartypeConf(is_pep484_tower=True))(function)


def check_shapes() -> None:
    """Imports the whole engine with every signature and dataclass checked at each call."""
    for name in OTHERS:
        importlib.import_module(name)
    from jaxtyping import install_import_hook

    typing.TYPE_CHECKING = True
    try:
        with install_import_hook("diffus", "shapes.typechecker"):
            engine = importlib.import_module("diffus")
            for module in pkgutil.walk_packages(engine.__path__, "diffus."):
                if not module.name.endswith("__main__"):
                    importlib.import_module(module.name)
    finally:
        typing.TYPE_CHECKING = False
