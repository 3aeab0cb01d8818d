"""The fan of a real ultrasound image, estimated from its pixels, so that a simulated slice has the same geometry.

The image is taken as given: x right is the marked side, y down is depth, the fan's axis is vertical.
"""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage, optimize
from torch import Tensor

from ..errors import InputError, _
from .fan_mask import MIN_PIXELS, fan_mask
from .probe import ConvexProbe, LinearProbe, PhasedProbe, Probe

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    from .fan_mask import Images

LINEAR_HALF_ANGLE = math.radians(1.5)  # sides closer to parallel than this make a linear array
WIDEST_HALF_ANGLE = math.radians(87.0)
PHASED_RADIUS_MM = 3.0  # no curved array is this small
INLIER_PX = 1.25  # of an edge point to its line or arc: pixels are drawn to half a pixel, video blurs by one
FAR_RAYS = 201  # that the far edge is looked at along
MIN_SHARP = 0.4  # fraction of them that end at it; shadows reach it on others
MAX_HIDDEN = 0.25  # fraction of the depth that black rows below may hide: scanners cut their pictures to the fan


@dataclass(frozen=True)
class Fan:
    """A fan found in an image.

    probe: its geometry (frequency and focus cannot be seen and are the caller's or typical). pixel_to_probe: (4, 4)
    float64, pixel centre (column, row, 0, 1) to probe-frame mm. mask: (H, W) bool, pixels inside of the fan.
    residual_mm: RMS distance of the edges seen from the fan's outline. coverage: fraction of the mask that is not
    black. depth_certain: false where the far edge does not show clearly, so that a black far field may be missing.
    """

    probe: Probe
    pixel_to_probe: Float[Tensor, "4 4"]
    mask: Bool[Tensor, "h w"]
    residual_mm: float
    coverage: float
    depth_certain: bool


@dataclass(frozen=True)
class _Sector:
    """Apex (x, y), face and bottom radius in pixels, half angle in radians."""

    x: float
    y: float
    near: float
    far: float
    half: float

    def polar(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.hypot(x - self.x, y - self.y), np.arctan2(x - self.x, y - self.y)

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        radius, angle = self.polar(x, y)
        return (radius >= self.near) & (radius <= self.far) & (np.abs(angle) <= self.half)

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Signed distances, positive outside, of points to the left side, the right side, the face and the bottom."""
        radius = self.polar(x, y)[0]
        across, along = (x - self.x) * math.cos(self.half), (y - self.y) * math.sin(self.half)
        return np.stack([-across - along, across - along, self.near - radius, radius - self.far])


@dataclass(frozen=True)
class _Box:
    """Sides of a linear array's image, in pixels."""

    left: float
    right: float
    top: float
    bottom: float

    def inside(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return (x >= self.left) & (x <= self.right) & (y >= self.top) & (y <= self.bottom)

    def distances(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.stack([self.left - x, x - self.right, self.top - y, y - self.bottom])


def estimate_fan(
    image: Images, mm_per_pixel: float, *, frequency_mhz: float = 5.0, depth_mm: float | None = None
) -> Fan:
    """Finds the fan of an image or of a sweep in its pixels.

    The two sides are the supporting lines of the non-black pixels that hold most edge points (RANSAC), which ignores
    shadows inside of the fan; they meet in the apex; face and depth are the most frequent first and last radius over
    the rays; all edge points then refine the shape by robust least squares. What the image cuts off is left out of the
    fit. Many frames make it surer than one. Where one side lies in shadow the other gives the angle.

    Args:
        image: Grey values (H, W) or frames (N, H, W), all of which are used.
        mm_per_pixel: Width and height of a pixel, 0.005 to 10 mm.
        frequency_mhz: Of the probe; it cannot be seen.
        depth_mm: From the probe's face, where it is known; else as far as echoes show.

    Raises:
        InputError: No fan can be seen, or an argument is out of range.
    """
    if not (isinstance(mm_per_pixel, numbers.Real) and 0.005 <= mm_per_pixel <= 10.0):
        raise InputError(
            _("mm_per_pixel is {mm_per_pixel!r}; give the size of a pixel, 0.005 to 10 mm."), mm_per_pixel=mm_per_pixel
        )
    visible = fan_mask(image).numpy()
    points = _edge_points(visible)
    middle = np.argwhere(visible).mean(0)[::-1]
    sides = [_side_line(points, middle, sign) for sign in (-1, 1)]
    if any(side is None for side in sides):
        raise InputError(
            _(
                "No ultrasound fan can be seen in this image: its left and right edges do not show; use "
                "more frames, or an uncropped image."
            )
        )
    (left, left_angle), (right, right_angle) = sides
    if max(abs(left_angle), abs(right_angle)) < LINEAR_HALF_ANGLE:
        shape = _fit_box(visible, left, right)
    elif left_angle + right_angle < LINEAR_HALF_ANGLE or left_angle + right_angle > 2 * WIDEST_HALF_ANGLE:
        raise InputError(
            _(
                "No ultrasound fan can be seen in this image: its sides do not open downwards; turn the "
                "image so that the probe is at its top."
            )
        )
    else:
        shape = _fit_sector(visible, points, (left, left_angle), (right, right_angle))
    fan = _as_fan(shape, visible, points, float(mm_per_pixel), frequency_mhz)
    return fan if depth_mm is None else _of_depth(fan, shape, depth_mm)


def _edge_points(visible: np.ndarray) -> np.ndarray:
    """Points (m, 2), x and y, half way between pixels inside and outside of the mask; the image's border is no edge."""
    points = []
    for axis in (0, 1):
        change = np.argwhere(np.diff(visible.astype(np.int8), axis=axis) != 0).astype(np.float64)
        change[:, axis] += 0.5
        points.append(change[:, ::-1])
    return np.concatenate(points)


def _side_line(points: np.ndarray, middle: np.ndarray, sign: int) -> tuple[np.ndarray, float] | None:
    """The fan's left (sign -1) or right side: (nx, ny, c) with the outward normal n.p = c, and its angle from vertical.

    RANSAC over pairs of edge points; a line counts the points on it and pays for every point outside of it.
    """
    if len(points) < MIN_PIXELS:
        return None
    generator = np.random.default_rng(0)
    first, second = points[generator.integers(0, len(points), (2, 4000))]
    direction = second - first
    length = np.hypot(*direction.T)
    shortest = 0.08 * np.ptp(points, axis=0).max()
    keep = length > shortest
    normal = np.stack([direction[keep, 1], -direction[keep, 0]], 1) / length[keep, None]
    offset = (normal * first[keep]).sum(1)
    outward = np.where(offset > normal @ middle, 1.0, -1.0)[:, None]
    normal, offset = normal * outward, offset * outward[:, 0]
    angle = np.arctan2(-normal[:, 1], sign * normal[:, 0])
    keep = (angle > -WIDEST_HALF_ANGLE) & (angle < WIDEST_HALF_ANGLE)
    if not keep.any():
        return None
    normal, offset = normal[keep], offset[keep]
    sample = points[generator.permutation(len(points))[:2000]]
    distance = sample @ normal.T - offset
    score = (np.abs(distance) < INLIER_PX).sum(0) - 3 * (distance > 2 * INLIER_PX).sum(0)
    best = int(np.argmax(score))
    line = np.array([*normal[best], offset[best]])
    if score[best] < 0.03 * len(sample):
        return None
    for _round in range(3):
        on = points[np.abs(points @ line[:2] - line[2]) < INLIER_PX]
        centre = on.mean(0)
        across = np.linalg.eigh(np.cov((on - centre).T))[1][:, 0]
        across *= math.copysign(1.0, across @ (centre - middle))
        line = np.array([*across, across @ centre])
    return line, math.atan2(-line[1], sign * line[0])


def _fit_box(visible: np.ndarray, left: np.ndarray, right: np.ndarray) -> _Box:
    height = visible.shape[0]
    x = [(line[2] - line[1] * height / 2) / line[0] for line in (left, right)]
    inner = visible[:, max(math.ceil(x[0]), 0) : math.floor(x[1]) + 1]
    inner = inner[:, inner.any(0)]
    first, last = inner.argmax(0), height - 1 - inner[::-1].argmax(0)
    top = _most_frequent(first - 0.5, -1) if (first > 0).mean() > 0.1 else -0.5
    bottom = _most_frequent(last + 0.5, 1) if (last < height - 1).mean() > 0.1 else height - 0.5
    return _Box(x[0], x[1], top, bottom)


def _fit_sector(
    visible: np.ndarray, points: np.ndarray, left: tuple[np.ndarray, float], right: tuple[np.ndarray, float]
) -> _Sector:
    lines = np.stack([left[0], right[0]])
    x, y = np.linalg.solve(lines[:, :2], lines[:, 2])
    # A shadow along one side leaves a smaller angle there; the axis is vertical, so the larger one holds.
    angles = left[1], right[1]
    half = max(angles) if abs(angles[0] - angles[1]) > math.radians(1.0) else sum(angles) / 2
    near, far = _radial_range(visible, x, y, half)
    sector = _Sector(x, y, near, far, half)
    for _round in range(3):
        sector = _refine(sector, points)
    return sector


def _radial_range(visible: np.ndarray, x: float, y: float, half: float) -> tuple[float, float]:
    """First and last visible radius over the rays; a ray that the image's border cuts says nothing of that end."""
    rows, columns = visible.shape
    step = 0.5
    angles = np.linspace(-0.97 * half, 0.97 * half, 401)[:, None]
    reach = max(math.hypot(u - x, v - y) for u in (0, columns) for v in (0, rows))
    radii = np.arange(0.0, reach, step)[None]
    column, row = np.rint(x + radii * np.sin(angles)), np.rint(y + radii * np.cos(angles))
    on_image = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
    column, row = np.clip(column, 0, columns - 1).astype(int), np.clip(row, 0, rows - 1).astype(int)
    seen = visible[row, column] & on_image
    keep = seen.any(1)
    if not keep.any():
        raise InputError(
            _(
                "No ultrasound fan can be seen in this image: between the lines that its sides would "
                "follow lies nothing."
            )
        )
    seen, on_image = seen[keep], on_image[keep]
    first, last = seen.argmax(1), seen.shape[1] - 1 - seen[:, ::-1].argmax(1)
    enters, leaves = on_image.argmax(1), on_image.shape[1] - 1 - on_image[:, ::-1].argmax(1)
    starts, ends = first[(first > enters) | (enters == 0)], last[last < leaves]
    near = _most_frequent(step * starts, -1) if len(starts) > 20 else step * first.min()
    far = _most_frequent(step * ends, 1) if len(ends) > 20 else step * last.max()
    return near, far


def _most_frequent(values: np.ndarray, outermost: int) -> float:
    """The mode of noisy values; of nearly as frequent ones the smallest (outermost -1) or largest (1)."""
    counts = (np.abs(values[:, None] - values[None]) <= INLIER_PX).sum(1)
    candidates = values[counts >= 0.5 * counts.max()]
    chosen = candidates.min() if outermost < 0 else candidates.max()
    return float(values[np.abs(values - chosen) <= INLIER_PX].mean())


def _refine(sector: _Sector, points: np.ndarray) -> _Sector:
    """Robust least squares of all five numbers to the edge points near the outline."""
    distance = sector.distances(*points.T)
    nearest = np.abs(distance).argmin(0)
    used = np.abs(distance).min(0) < 2 * INLIER_PX
    if used.sum() < MIN_PIXELS:
        return sector
    (px, py), nearest = points[used].T, nearest[used]
    free = [True, True, (nearest == 2).sum() > 10, (nearest == 3).sum() > 10, True]
    start = np.array([sector.x, sector.y, sector.near, sector.far, sector.half])

    def residuals(values: np.ndarray) -> np.ndarray:
        full = start.copy()
        full[free] = values
        return _Sector(*full).distances(px, py)[nearest, np.arange(len(px))]

    fit = optimize.least_squares(residuals, start[free], x_scale=np.array([1, 1, 1, 1, 0.01])[free], loss="soft_l1")
    start[free] = fit.x
    return _Sector(*start)


def _of_depth(fan: Fan, shape: _Sector | _Box, depth_mm: float) -> Fan:
    """The fan with the depth that the user knows."""
    probe = replace(fan.probe, depth_mm=depth_mm, focus_mm=depth_mm / 2)
    bottom = (depth_mm - fan.pixel_to_probe[1, 3].item()) / fan.pixel_to_probe[1, 1].item()
    known = replace(shape, far=bottom - shape.y) if isinstance(shape, _Sector) else replace(shape, bottom=bottom)
    row, column = np.indices(fan.mask.shape)
    return replace(fan, probe=probe, mask=torch.from_numpy(known.inside(column, row)), depth_certain=True)


def _far_edge_shows(shape: _Sector | _Box, visible: np.ndarray) -> bool:
    """Whether the fan ends at a sharp edge, with little below it in the image that could be its black far field.

    Where the image's border cuts the fan off, it ends with the image.
    """
    across = np.linspace(-0.9, 0.9, FAR_RAYS)
    if isinstance(shape, _Sector):
        direction = np.stack([np.sin(across * shape.half), np.cos(across * shape.half)])
        end = np.array([[shape.x], [shape.y]]) + shape.far * direction
    else:
        direction = np.stack([np.zeros(FAR_RAYS), np.ones(FAR_RAYS)])
        middle, half = (shape.left + shape.right) / 2, (shape.right - shape.left) / 2
        end = np.stack([middle + half * across, np.full(FAR_RAYS, shape.bottom)])
    rows, columns = visible.shape

    def seen(beyond: float) -> tuple[np.ndarray, np.ndarray]:
        column, row = np.rint(end + beyond * direction).astype(int)
        inside = (column >= 0) & (column < columns) & (row >= 0) & (row < rows)
        return inside, visible[row.clip(0, rows - 1), column.clip(0, columns - 1)] & inside

    on_image, still = seen(2 * INLIER_PX)
    if on_image.sum() < 0.2 * FAR_RAYS:
        return True
    sharp = seen(-2 * INLIER_PX)[1] & ~still
    near = shape.y + shape.near if isinstance(shape, _Sector) else shape.top
    below = rows - 1 - end[1].max()
    return bool(sharp[on_image].mean() >= MIN_SHARP and below <= MAX_HIDDEN * (rows - 1 - near))


def _as_fan(
    shape: _Sector | _Box, visible: np.ndarray, points: np.ndarray, mm_per_pixel: float, frequency_mhz: float
) -> Fan:
    try:
        probe, x, y = _as_probe(shape, mm_per_pixel, frequency_mhz)
    except InputError as error:
        raise InputError(
            _("The fan seen in this image is no probe's at {mm_per_pixel:g} mm per pixel: {error}"),
            mm_per_pixel=mm_per_pixel,
            error=error,
        ) from error
    row, column = np.indices(visible.shape)
    inside = shape.inside(column, row)
    coverage = (visible & inside).sum() / max(inside.sum(), 1)
    spilled = (visible & (shape.distances(column, row).max(0) > 2 * INLIER_PX)).sum() / visible.sum()
    outline = probe.outline(200).numpy() / mm_per_pixel + [x, y]
    distance = np.abs(shape.distances(*points.T)).min(0)
    residual = (
        math.sqrt((distance[distance < 2 * INLIER_PX] ** 2).mean()) if (distance < INLIER_PX).any() else INLIER_PX
    )
    support = _support(outline, points, visible.shape)
    # Much of the outline must show, or at least sharp parts of it: a curve that only touches lines is neither.
    if coverage < 0.4 or spilled > 0.05 or support < (0.45 if residual < 0.8 else 0.7):
        raise InputError(
            _(
                "No ultrasound fan can be seen in this image: the bright region has not the outline of a "
                "linear, convex or phased array."
            )
        )

    pixel_to_probe = torch.diag(torch.tensor([mm_per_pixel] * 3 + [1.0], dtype=torch.float64))
    pixel_to_probe[:2, 3] = torch.tensor([-x * mm_per_pixel, -y * mm_per_pixel])
    return Fan(
        probe,
        pixel_to_probe,
        torch.from_numpy(inside),
        residual * mm_per_pixel,
        float(coverage),
        _far_edge_shows(shape, visible),
    )


def _as_probe(shape: _Sector | _Box, mm_per_pixel: float, frequency_mhz: float) -> tuple[Probe, float, float]:
    """The probe and the pixel (x, y) of its origin."""
    common = {"frequency_mhz": frequency_mhz, "mm_per_pixel": mm_per_pixel}
    if isinstance(shape, _Box):
        depth = float(shape.bottom - shape.top) * mm_per_pixel
        width = float(shape.right - shape.left) * mm_per_pixel
        probe = LinearProbe(width, depth_mm=depth, focus_mm=depth / 2, **common)
        return probe, (shape.left + shape.right) / 2, shape.top
    phased = shape.near * mm_per_pixel < PHASED_RADIUS_MM
    near = 0.0 if phased else float(shape.near)
    depth = (float(shape.far) - near) * mm_per_pixel
    angle = math.degrees(2 * shape.half)
    if phased:
        probe = PhasedProbe(angle, depth_mm=depth, focus_mm=depth / 2, **common)
    else:
        probe = ConvexProbe(near * mm_per_pixel, angle, depth_mm=depth, focus_mm=depth / 2, **common)
    return probe, shape.x, shape.y + near


def _support(outline: np.ndarray, points: np.ndarray, size: tuple[int, int]) -> float:
    """Fraction of the outline's length on the image with edge points beside it; shadows leave gaps."""
    closed = np.concatenate([outline, outline[:1]])
    length = np.concatenate([[0.0], np.hypot(*np.diff(closed, axis=0).T).cumsum()])
    x, y = (np.interp(np.arange(0.0, length[-1]), length, closed[:, axis]) for axis in (0, 1))
    on_image = (x > 1) & (x < size[1] - 2) & (y > 1) & (y < size[0] - 2)
    if on_image.sum() < MIN_PIXELS:
        return 0.0
    edge = np.zeros(size, bool)
    edge[points[:, 1].astype(int), points[:, 0].astype(int)] = True
    away = ndimage.distance_transform_edt(~edge)
    return float((away[np.rint(y[on_image]).astype(int), np.rint(x[on_image]).astype(int)] < 1.5).mean())
