"""The check of shapes itself: that it is on, that `bad_input` takes it away, and that it overlooks no annotation."""

import inspect
import sys

import jaxtyping
import pytest
import torch
from diffus.errors import InputError
from diffus.medium import AcousticMedium


def test_a_wrong_shape_is_found():
    with pytest.raises(jaxtyping.TypeCheckError, match="4 k j i"):
        AcousticMedium(torch.rand(3, 4, 4, 4), torch.eye(4))


@pytest.mark.bad_input
def test_a_marked_test_hears_what_the_engine_says():
    with pytest.raises(InputError, match="maps"):
        AcousticMedium(torch.rand(3, 4, 4, 4), torch.eye(4))


def test_every_annotation_means_something():
    """jaxtyping takes one that it cannot evaluate, say with an import missing, for Any, and says nothing."""
    checked, wrong = 0, []
    for module in [module for name, module in sys.modules.items() if name.split(".")[0] == "diffus"]:
        for name, annotation in _annotations(module, module.__name__):
            checked += 1
            try:
                eval(annotation, dict(vars(module)))
            except Exception as error:
                wrong.append(f"{module.__name__}.{name}: {annotation} ({error})")
    assert wrong == []
    assert checked > 2000


def _annotations(owner, module):
    for name, value in vars(owner).items():
        value = getattr(value, "fget", None) or getattr(value, "__func__", value)
        if not callable(value) or getattr(value, "__module__", None) != module:
            continue
        if inspect.isclass(value):
            yield from _annotations(value, module)
        for each, annotation in getattr(value, "__annotations__", {}).items():
            if isinstance(annotation, str):
                yield f"{name}({each})", annotation
