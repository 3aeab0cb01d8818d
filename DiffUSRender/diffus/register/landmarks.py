"""Landmarks: pair them, measure target registration error, register by least squares."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from ..errors import InputError, _
from ..geometry.pose import transform_points
from ..io.landmarks import Landmarks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jaxtyping import Float


def match_landmarks(first: Landmarks, second: Landmarks) -> tuple[Float[Tensor, "n 3"], Float[Tensor, "n 3"]]:
    """The points of the pairs of `pair_names`, in the first list's order."""
    rows = list(zip(*pair_names(first.names, second.names)))
    return first.points[list(rows[0])], second.points[list(rows[1])]


def pair_names(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int]]:
    """Which of the first list belongs to which of the second.

    Equal names are pairs; of the others those that end in the same number ("F-3", "U-3"); where neither holds for any,
    the order decides, if the lists are of one length.

    Returns:
        (index, index), in the first list's order.

    Raises:
        InputError: That is ambiguous, or only some of the shorter list have a partner: an error over those alone would
            mislead.
    """
    if not first or not second:
        raise InputError(_("A list of landmarks is empty; place the same points in both lists."))
    pairs = _pair_keys(dict(enumerate(first)), dict(enumerate(second)))
    done = [set(side) for side in zip(*pairs)] or [set(), set()]
    rest = [
        {n: _number(name) for n, name in enumerate(names) if n not in used}
        for names, used in zip((first, second), done)
    ]
    pairs += _pair_keys(*rest)
    if not pairs:
        if len(first) != len(second):
            raise InputError(
                _(
                    "The two landmark lists have no names in common and differ in length ({count} and "
                    "{other}); give pairs the same names."
                ),
                count=len(first),
                other=len(second),
            )
        return [(n, n) for n in range(len(first))]
    if len(pairs) < min(len(first), len(second)):
        lonely = next(name for n, name in enumerate(first) if n not in dict(pairs))
        raise InputError(
            _("Only {count} landmarks have a partner of the same name (not '{lonely}'); rename them."),
            count=len(pairs),
            lonely=lonely,
        )
    return sorted(pairs)


def _pair_keys(first: dict[int, str], second: dict[int, str]) -> list[tuple[int, int]]:
    """Pairs of indices with the same key; empty keys have none. Raises InputError for a key that stands twice."""
    common = set(first.values()) & set(second.values()) - {""}
    for name in sorted(common):
        if list(first.values()).count(name) > 1 or list(second.values()).count(name) > 1:
            raise InputError(
                _("'{name}' stands for more than one landmark of a list; give every pair a name of its own."), name=name
            )
    index = {name: n for n, name in second.items()}
    return [(n, index[name]) for n, name in first.items() if name in common]


def _number(name: str) -> str:
    """The number that a name ends in, without leading zeros, or an empty string."""
    found = re.search(r"(\d+)$", name)
    return str(int(found[1])) if found else ""


def target_errors(
    a_to_b: Float[Tensor, "4 4"], points_a: Float[Tensor, "n 3"], points_b: Float[Tensor, "n 3"]
) -> Float[Tensor, " n"]:
    """Distance in mm of every mapped point of a from its partner in b (target registration error)."""
    return (transform_points(a_to_b, points_a) - points_b).norm(dim=-1)


def rigid_from_landmarks(points_a: Float[Tensor, "n 3"], points_b: Float[Tensor, "n 3"]) -> Float[Tensor, "4 4"]:
    """The rigid map of least squares, never a reflection (Arun 1987, Umeyama 1991).

    Args:
        points_a: (n, 3) mm.
        points_b: Their partners.

    Returns:
        a_to_b, (4, 4) float64.

    Raises:
        InputError: Fewer than three pairs, or all on one line.
    """
    if points_a.shape != points_b.shape or len(points_a) < 3:
        raise InputError(_("A landmark registration needs three or more pairs of points."))
    a, b = points_a.double().cpu(), points_b.double().cpu()
    a, b, middle_a, middle_b = a - a.mean(0), b - b.mean(0), a.mean(0), b.mean(0)
    spread = torch.linalg.svdvals(a)
    if spread[1] < 1e-3 * spread[0].clamp_min(1e-9):
        raise InputError(_("The landmarks lie on one line; add a point beside it."))
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = torch.from_numpy(Rotation.align_vectors(b.numpy(), a.numpy())[0].as_matrix())
    matrix[:3, 3] = middle_b - matrix[:3, :3] @ middle_a
    return matrix
