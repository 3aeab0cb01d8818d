"""MRI to acoustic properties: intensity scale, impedance by a small network, tissue memberships.

Intensities of MRI are not quantitative. They are brought onto a scale where cerebrospinal fluid, grey and white matter
have fixed places (`fit_intensity_scale`, `normalise`); the same scale is used when the network is trained and applied.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor, nn

from ..errors import InputError
from ..geometry.filters import soften
from .checks import as_mask, as_volume, require_contrast
from .curves import lookup, piecewise_linear
from .tissue import GEL, Tissue, tissue_properties, tissue_table

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

TISSUES = ("csf", "grey matter", "white matter")
# Where the tissues lie on the scale of `normalise`. Grey matter at 0.6 is where it is in T1-weighted heads anyway
# (0.59 in the MNI152 2009a average, 0.60 in Colin27), so that for T1 the scale is nearly a straight line.
LEVELS = (0.0, 0.6, 1.0)
CONTRASTS = ("t1", "t2")

# The network is trained on, and level beyond, this range of the scale.
LEVEL_RANGE = (-0.5, 1.5)
WEIGHTS = "impedance_mlp.pt"
SULCUS_MM = 4.0  # fluid in narrower gaps is sulcus, in wider ones ventricle, cistern or cyst

_DEEP = 0.35


@dataclass(frozen=True)
class IntensityScale:
    """Mean intensities of the tissue classes of one MRI, in the order of `TISSUES` (T1: ascending, T2: descending)."""

    centres: tuple[float, ...]


class ImpedanceMLP(nn.Module):
    """Impedance in MRayl from normalised intensity: 1-32-32-1, as in the paper's reference code."""

    def __init__(self, hidden: int = 32):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden), nn.SiLU(), nn.Linear(hidden, 1)
        )
        # Impedance = offset + scale * network, so that the network works on numbers around one.
        self.register_buffer("offset", torch.tensor(1.57))
        self.register_buffer("scale", torch.tensor(0.05))

    def forward(self, level: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
        """Normalised intensity of any shape to impedance in MRayl; level beyond `LEVEL_RANGE`."""
        return self.offset + self.scale * self.layers(level.clamp(*LEVEL_RANGE)[..., None])[..., 0]


@dataclass(frozen=True)
class TrainingStep:
    """One epoch of `train_impedance`: its number (from 1) of `epochs`, mean squared error in MRayl^2, the network."""

    epoch: int
    epochs: int
    loss: float
    model: ImpedanceMLP


def reference_points() -> list[tuple[float, float]]:
    """What the network learns by default: (normalised intensity, MRayl) of the tissues in the table."""
    return [(level, tissue_table()[name].impedance_mrayl) for level, name in zip(LEVELS, TISSUES)]


def train_impedance(
    points: Sequence[tuple[float, float]] | None = None,
    *,
    epochs: int = 1500,
    seed: int = 0,
    learning_rate: float = 0.01,
) -> Iterator[TrainingStep]:
    """Trains `ImpedanceMLP` on tissue reference points, one epoch per step.

    points: at least two (normalised intensity, impedance in MRayl); None takes `reference_points`. Between two points
    a voxel is a mixture of both tissues and its impedance lies in between in proportion; beyond the outer points it
    stays as it is there. Each epoch sees 256 intensities drawn from `LEVEL_RANGE` and every point 16 times. The same
    seed gives the same weights.
    """
    knots, values = _checked_points(reference_points() if points is None else points)
    if epochs < 1:
        raise InputError(f"The number of epochs must be at least 1, not {epochs}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = ImpedanceMLP()
    with torch.no_grad():
        model.offset.fill_(sum(values) / len(values))
        model.scale.fill_(max(max(values) - min(values), 1e-3))
    draw = torch.Generator().manual_seed(seed)
    low, high = LEVEL_RANGE
    often = torch.tensor(knots).repeat(16)
    optimizer = torch.optim.Adam(model.parameters(), lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    for epoch in range(1, epochs + 1):
        level = torch.cat([low + (high - low) * torch.rand(256, generator=draw), often])
        target = piecewise_linear(level.clamp(knots[0], knots[-1]), knots, values)
        with torch.enable_grad():
            loss = (model(level) - target).square().mean()
            optimizer.zero_grad()
            (loss / model.scale**2).backward()
        optimizer.step()
        schedule.step()
        yield TrainingStep(epoch, epochs, loss.item(), model)


def save_impedance(model: ImpedanceMLP, path: str | Path) -> None:
    """Writes the weights (a state dict) to a file."""
    torch.save(model.state_dict(), path)


def load_impedance(path: str | Path | None = None) -> ImpedanceMLP:
    """The network with the weights of a file, None for those shipped. Raises InputError if the file holds none."""
    name = WEIGHTS if path is None else str(path)
    try:
        source = resources.files("diffus.data").joinpath(WEIGHTS) if path is None else Path(path)
        state = torch.load(io.BytesIO(source.read_bytes()), map_location="cpu", weights_only=True)
        model = ImpedanceMLP()
        model.load_state_dict(state)
    except FileNotFoundError as error:
        raise InputError(f"The impedance weights {name} do not exist; choose another file.") from error
    except Exception as error:  # a damaged file can fail in any layer of the reader
        raise InputError(
            f"{name} does not hold the weights of an impedance network; train one with train-impedance."
        ) from error
    if not all(torch.isfinite(value).all() for value in model.state_dict().values()):
        raise InputError(f"The impedance weights {name} hold NaN or infinite numbers; train them again.")
    return model.requires_grad_(False).eval()


def impedance_from_level(
    mapping: Callable[[Tensor], Tensor], level: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """Impedance of a normalised volume, any shape, by a network or any function of it; differentiable to both.

    `ImpedanceMLP` is evaluated at 2049 levels and looked up between them (error below 1e-6 MRayl): its hidden layers
    would need 32 volumes. Any other function is called with the volume.
    """
    if isinstance(mapping, ImpedanceMLP):
        weight = mapping.offset
        levels = torch.linspace(*LEVEL_RANGE, 2049, dtype=weight.dtype, device=weight.device)
        return lookup(level, *LEVEL_RANGE, mapping(levels).to(level))
    impedance = mapping(level)
    if not isinstance(impedance, Tensor) or impedance.shape != level.shape:
        raise InputError("The mapping from intensity to impedance must return a tensor of the same shape.")
    return impedance.to(level)


def fit_intensity_scale(
    volume: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    contrast: str = "t1",
    n: int = 3,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> IntensityScale:
    """The tissue classes of an MRI, (K, J, I): k-means of the intensities deep inside the head or the mask.

    Deep means further from the surface than 35 % of the deepest point: there is brain and no scalp, whether the
    head is whole or stripped. contrast: "t1" (fluid dark) or "t2" (fluid bright; its spread is wide, so the classes
    are sought in the logarithm). n: number of classes. spacing_mm: along k, j, i.
    Where the deep voxels have fewer grey levels than classes, all of the mask is taken; where that has too, the
    classes are spread evenly from the darkest to the brightest voxel.
    """
    volume = as_volume(volume, "MRI").detach()
    require_contrast(volume, "MRI")
    if contrast not in CONTRASTS:
        raise InputError(f'The contrast of an MRI must be "t1" or "t2", not "{contrast}".')
    if n < 2:
        raise InputError(f"The number of tissue classes must be at least 2, not {n}.")
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    centres = None
    for values in _intensities(volume.cpu().numpy(), inside.cpu().numpy(), spacing_mm):
        if contrast == "t2":
            floor = max(float(np.percentile(values, 98)), 1e-6) * 1e-3
            centres = _k_means(np.log(values.clip(min=floor)), n)
            centres = None if centres is None else np.exp(centres)[::-1]
        else:
            centres = _k_means(values, n)
        if centres is not None:
            break
    else:
        centres = np.linspace(volume.min().item(), volume.max().item(), n)
        centres = centres[::-1] if contrast == "t2" else centres
    return IntensityScale(tuple(float(c) for c in centres))


def normalise(volume: Float[Tensor, "*shape"], scale: IntensityScale) -> Float[Tensor, "*shape"]:
    """MRI intensities on the common scale: fluid 0, grey matter 0.6, white matter 1; straight between and beyond.

    Landmark-based standardisation as in Nyul and Udupa 1999 (MRM 42:1072-1081), the landmarks being tissue means.
    """
    if len(scale.centres) != len(LEVELS):
        raise InputError(f"The intensity scale has {len(scale.centres)} tissue classes; fit it with {len(LEVELS)}.")
    return piecewise_linear(volume, *_ascending(scale, LEVELS))


def tissue_memberships(
    t1: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    n: int = 3,
    *,
    contrast: str = "t1",
    scale: IntensityScale | None = None,
) -> Float[Tensor, "n k j i"]:
    """Soft memberships of n tissue classes in order of T1 intensity (fluid first), (n, K, J, I), sum 1 in the mask.

    A voxel between the means of two neighbouring classes is the mixture of both that has its intensity (partial
    volume). Zero outside of the mask; None finds the head. Differentiable to t1 with the class means held.
    """
    volume = as_volume(t1, "MRI")
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    scale = scale or fit_intensity_scale(volume, inside, contrast=contrast, n=n)
    knots, places = _ascending(scale, range(len(scale.centres)))
    place = piecewise_linear(volume.clamp(knots[0], knots[-1]), knots, places)
    shares = [(1 - (place - c).abs()).clamp(min=0) * inside for c in range(len(scale.centres))]
    return torch.stack(shares)


def mri_maps(
    t1: np.ndarray | Tensor,
    mask: np.ndarray | Tensor | None = None,
    *,
    mapping: str | Path | Callable[[Tensor], Tensor] | None = None,
    contrast: str = "t1",
    scale: IntensityScale | None = None,
    sulci: Tensor | None = None,
    tissues: Mapping[str, Tissue] | None = None,
    spacing_mm: Sequence[float] = (1.0, 1.0, 1.0),
) -> Float[Tensor, "4 k j i"]:
    """The four maps of an MRI, (4, K, J, I); arguments and errors as in `AcousticMedium.from_mri`."""
    volume = as_volume(t1, "MRI")
    require_contrast(volume, "MRI")
    inside = foreground_mask(volume) if mask is None else as_mask(mask, volume)
    scale = scale or fit_intensity_scale(volume, inside, contrast=contrast, spacing_mm=spacing_mm)
    if mapping is None or isinstance(mapping, (str, Path)):
        mapping = load_impedance(mapping).to(volume.device)
    maps = [impedance_from_level(mapping, normalise(volume, scale))]
    # Properties by soft membership: with memberships linear between the class means, so are they.
    clamped = volume.clamp(min(scale.centres), max(scale.centres))
    if sulci is None:
        sulci = narrow_fluid(normalise(clamped.detach(), scale), inside, spacing_mm)
    fluid, sulcus = tissue_properties(mri_tissues(("csf", "sulcus"), tissues))[:, 1:].tolist()
    properties = tissue_properties(mri_tissues(TISSUES, tissues))
    for column, in_fluid, in_sulcus in zip(properties.T[1:].tolist(), fluid, sulcus):
        channel = piecewise_linear(clamped, *_ascending(scale, column))
        maps.append(channel + (in_sulcus - in_fluid) * sulci)
    maps = [channel.masked_fill(~inside, value) for channel, value in zip(maps, GEL)]
    maps[0] = soften(maps[0])
    return torch.stack(maps)


def mri_tissues(names: Sequence[str], tissues: Mapping[str, Tissue] | None = None) -> list[Tissue]:
    """The tissues of these names: of `tissues` where it has them, else of the table."""
    return [tissues[name] if tissues and name in tissues else tissue_table()[name] for name in names]


def narrow_fluid(
    level: Float[Tensor, "k j i"], inside: Bool[Tensor, "k j i"], spacing_mm: Sequence[float]
) -> Float[Tensor, "k j i"]:
    """Share of fluid, 0 to 1, that lies in gaps narrower than `SULCUS_MM`: what a grey opening with a ball takes away.

    Sulci are bright in ultrasound, for they hold pia and vessels; ventricles are black. level: as `normalise` gives it.
    """
    fluid = ((LEVELS[1] - level) / (LEVELS[1] - LEVELS[0])).clamp(0, 1) * inside
    reach = [max(1, round(0.5 * SULCUS_MM / mm)) for mm in spacing_mm]
    grid = np.ogrid[tuple(slice(-r, r + 1) for r in reach)]
    ball = sum((g / (r + 0.2)) ** 2 for g, r in zip(grid, reach)) <= 1
    shares = fluid.cpu().numpy()
    wide = ndimage.grey_opening(shares, footprint=ball)
    return torch.from_numpy(np.clip(shares - wide, 0, 1)).to(level)


def foreground_mask(volume: Float[Tensor, "k j i"]) -> Bool[Tensor, "k j i"]:
    """The head (or stripped brain) in an MRI: the largest piece above the darker of two Otsu thresholds, holes filled.

    The first threshold (Otsu 1979) parts bright tissue from the rest, the second the rest into dark tissue and air.
    """
    values = volume.detach().cpu().numpy()
    top = np.percentile(values, 99.9)
    counts, edges = np.histogram(values, 512, range=(values.min(), top if top > values.min() else values.max()))
    middles = (edges[1:] + edges[:-1]) / 2
    first = _otsu(counts, middles)
    darker = middles < first
    above = values > (_otsu(counts[darker], middles[darker]) if darker.sum() > 1 else first)
    regions, count = ndimage.label(above)
    if count > 1:
        above = regions == np.bincount(regions.ravel())[1:].argmax() + 1
    return torch.from_numpy(_fill_holes(above)).to(volume.device)


def _checked_points(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    pairs = sorted((float(level), float(impedance)) for level, impedance in points)
    if len({level for level, _ in pairs}) < max(2, len(pairs)):
        raise InputError("Training needs at least two reference points at different intensities.")
    if not all(np.isfinite(pair).all() and pair[1] > 0 for pair in pairs):
        raise InputError("Reference points must be finite numbers with a positive impedance in MRayl.")
    return [level for level, _ in pairs], [impedance for _, impedance in pairs]


def _ascending(scale: IntensityScale, values: Sequence[float]) -> tuple[list[float], list[float]]:
    """The class means in ascending order, and the given value of each."""
    pairs = sorted(zip(scale.centres, values))
    return [centre for centre, _ in pairs], [float(value) for _, value in pairs]


def _intensities(volume: np.ndarray, inside: np.ndarray, spacing_mm: Sequence[float]) -> Iterator[np.ndarray]:
    """Intensities far inside of the mask, then those of all of it, from a grid of at most 128 voxels an axis."""
    steps = [-(-size // 128) for size in inside.shape]
    every = tuple(slice(None, None, step) for step in steps)
    inside, volume = inside[every], volume[every].astype(np.float64)
    distance = ndimage.distance_transform_edt(
        np.pad(inside, 1), sampling=[step * mm for step, mm in zip(steps, spacing_mm)]
    )[1:-1, 1:-1, 1:-1]
    for chosen in (distance > _DEEP * distance.max(), inside):
        if chosen.any():
            yield volume[chosen]


def _k_means(values: np.ndarray, n: int) -> np.ndarray | None:
    """Ascending means of n classes of numbers (Lloyd 1982), or None if there are not that many."""
    low, high = np.percentile(values, [2, 98])
    centres = low + (high - low) * (np.arange(n) + 0.5) / n
    if np.unique(values).size < n:
        return None
    for _ in range(200):
        classes = np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
        counts = np.bincount(classes, minlength=n)
        if (counts == 0).any():
            return None
        moved = np.bincount(classes, values, minlength=n) / counts
        if np.allclose(moved, centres, rtol=0, atol=1e-9 * max(high - low, 1e-30)):
            break
        centres = moved
    return centres if (np.diff(centres) > 0).all() else None


def _otsu(counts: np.ndarray, middles: np.ndarray) -> float:
    """The threshold of a histogram with the greatest variance between the two classes."""
    weight, moment = np.cumsum(counts), np.cumsum(counts * middles)
    rest = weight[-1] - weight
    between = (moment[-1] * weight / weight[-1] - moment) ** 2 / np.maximum(weight * rest, 1e-12)
    return float(middles[between[:-1].argmax()])


def _fill_holes(mask: np.ndarray) -> np.ndarray:
    """The mask with every gap filled that does not reach the border of the volume."""
    gaps, count = ndimage.label(~mask)
    open_gaps = np.zeros(count + 1, dtype=bool)
    for axis in range(3):
        open_gaps[np.unique(np.take(gaps, [0, -1], axis=axis))] = True
    open_gaps[0] = False
    return ~open_gaps[gaps]
