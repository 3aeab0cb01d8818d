"""AcousticMedium: sampling in world millimetres, gel outside, gradients, memory."""

import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.medium import GEL, AcousticMedium, Tissue, tissue_table

ENGINE = Path(__file__).resolve().parents[2] / "DiffUSRender"


def oblique_matrix(seed=0, spacing=(0.7, 1.3, 2.1), flip=False):
    """Voxels of different sides, turned and shifted; flipped axes when asked, as LPS files have them."""
    generator = torch.Generator().manual_seed(seed)
    rotation = torch.linalg.qr(torch.randn(3, 3, generator=generator, dtype=torch.float64))[0]
    matrix = torch.eye(4, dtype=torch.float64)
    matrix[:3, :3] = rotation * torch.tensor(spacing, dtype=torch.float64)
    if flip:
        matrix[:3, :2] *= -1
    matrix[:3, 3] = torch.tensor([12.0, -30.0, 45.0])
    return matrix


def voxel_centres(matrix, shape):
    k, j, i = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in shape), indexing="ij")
    return torch.stack([i, j, k], -1) @ matrix[:3, :3].T + matrix[:3, 3]


@pytest.mark.parametrize("flip", [False, True])
def test_voxel_centres_give_the_voxels(flip):
    matrix, shape = oblique_matrix(flip=flip), (5, 6, 7)
    maps = torch.rand(4, *shape, dtype=torch.float64)
    medium = AcousticMedium(maps, matrix)
    torch.testing.assert_close(medium.sample(voxel_centres(matrix, shape)), maps, rtol=0, atol=1e-12)
    torch.testing.assert_close(medium.maps, maps, rtol=0, atol=1e-14)


def test_a_linear_field_is_sampled_exactly():
    matrix, shape = oblique_matrix(3), (6, 5, 4)
    slopes = torch.tensor([[0.3, -0.2, 0.1], [1.0, 0.0, 0.0], [0.0, 2.0, 0.0], [0.0, 0.0, -1.0]], dtype=torch.float64)
    maps = torch.einsum("kjic,pc->pkji", voxel_centres(matrix, shape), slopes)
    generator = torch.Generator().manual_seed(1)
    ijk = torch.rand(2, 9, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.0, 4.0, 5.0])
    points = ijk @ matrix[:3, :3].T + matrix[:3, 3]
    sampled = AcousticMedium(maps, matrix).sample(points)
    assert sampled.shape == (4, 2, 9)
    torch.testing.assert_close(sampled, torch.einsum("bnc,pc->pbn", points, slopes), rtol=0, atol=1e-11)


def test_outside_is_gel_and_the_border_fades_into_it():
    medium = AcousticMedium(torch.full((4, 3, 3, 3), 5.0), torch.eye(4))
    far, half_out = medium.sample(torch.tensor([[100.0, 0.0, 0.0], [2.5, 1.0, 1.0]])).T
    assert far.tolist() == pytest.approx(GEL)
    assert half_out.tolist() == pytest.approx([(5 + gel) / 2 for gel in GEL])


def test_another_background():
    background = torch.tensor([1.0, 2.0, 3.0, 4.0])
    medium = AcousticMedium(torch.rand(4, 3, 3, 3), torch.eye(4), background)
    assert medium.sample(torch.tensor([-9.0, 0.0, 0.0])).tolist() == pytest.approx([1, 2, 3, 4])
    with pytest.raises(InputError, match="background"):
        AcousticMedium(torch.rand(4, 3, 3, 3), torch.eye(4), torch.ones(3))


def test_gel_is_what_the_table_says_and_no_mirror():
    assert tissue_table()["gel"].properties == GEL
    for tissue in ("fat", "skin", "water", "grey matter"):
        z = tissue_table()[tissue].impedance_mrayl
        assert abs(z - GEL[0]) / (z + GEL[0]) < 0.1


def test_no_points_and_one_point():
    medium = AcousticMedium(torch.rand(4, 3, 3, 3), torch.eye(4))
    assert medium.sample(torch.zeros(0, 3)).shape == (4, 0)
    assert medium.sample(torch.zeros(3)).shape == (4,)


def test_threads_do_not_change_the_samples():
    medium = AcousticMedium(torch.rand(4, 9, 8, 7), oblique_matrix())
    generator = torch.Generator().manual_seed(0)
    points = medium.bounds_ras().mean(0).float() + 8 * torch.randn(12001, 3, generator=generator)
    one = medium.sample(points)
    torch.set_num_threads(2)
    try:
        two = medium.sample(points)
    finally:
        torch.set_num_threads(1)
    assert torch.equal(one, two)


def test_bounds_and_overlap():
    matrix = torch.diag(torch.tensor([2.0, 3.0, 4.0, 1.0], dtype=torch.float64))
    medium = AcousticMedium(torch.rand(4, 5, 6, 7), matrix)
    bounds = medium.bounds_ras()
    assert bounds.amin(0).tolist() == [-1.0, -1.5, -2.0]
    assert bounds.amax(0).tolist() == [13.0, 16.5, 18.0]
    points = torch.tensor([[0.0, 0.0, 0.0], [12.9, 16.4, 17.9], [13.1, 0.0, 0.0], [0.0, -1.6, 0.0]])
    assert medium.contains(points).tolist() == [True, True, False, False]
    assert medium.overlaps(points) == 0.5


def test_dtype_and_device_move_together():
    medium = AcousticMedium(torch.rand(4, 3, 3, 3), torch.eye(4))
    moved = medium.to(torch.float64)
    assert (moved.dtype, moved.device.type, medium.dtype) == (torch.float64, "cpu", torch.float32)
    point = torch.tensor([0.3, 1.2, 1.9])
    assert moved.sample(point).dtype == torch.float64
    torch.testing.assert_close(moved.sample(point).float(), medium.sample(point))


@pytest.mark.parametrize("maps_wanted", [False, True])
def test_gradients_of_sampling(maps_wanted):
    matrix = oblique_matrix()
    generator = torch.Generator().manual_seed(2)
    maps = torch.rand(4, 4, 3, 5, generator=generator, dtype=torch.float64, requires_grad=maps_wanted)
    ijk = 0.2 + torch.rand(6, 3, generator=generator, dtype=torch.float64) * torch.tensor([3.5, 1.5, 2.5])
    points = (ijk @ matrix[:3, :3].T + matrix[:3, 3]).requires_grad_()
    assert torch.autograd.gradcheck(lambda m, p: AcousticMedium(m, matrix).sample(p), (maps, points))


def test_memberships_mix_tissues_and_leave_the_rest_to_gel():
    shares = torch.zeros(2, 2, 2, 3)
    shares[:, 0, 0, 0] = torch.tensor([0.5, 0.5])
    shares[:, 0, 0, 1] = torch.tensor([0.25, 0.0])
    medium = AcousticMedium.from_memberships(shares, ["liver", "blood"], torch.eye(4))
    liver, blood = (tissue_table()[name].properties for name in ("liver", "blood"))
    assert medium.maps[:, 0, 0, 0].tolist() == pytest.approx([(a + b) / 2 for a, b in zip(liver, blood)])
    assert medium.maps[:, 0, 0, 1].tolist() == pytest.approx([a / 4 + 3 * g / 4 for a, g in zip(liver, GEL)])
    assert medium.maps[:, 1, 1, 2].tolist() == pytest.approx(GEL)


def test_gradients_of_memberships_and_of_tissue_properties():
    generator = torch.Generator().manual_seed(0)
    shares = (torch.rand(2, 2, 3, 2, generator=generator, dtype=torch.float64) / 2).requires_grad_()
    properties = torch.rand(2, 4, generator=generator, dtype=torch.float64, requires_grad=True)
    build = lambda s, p: AcousticMedium.from_memberships(s, p, torch.eye(4)).maps  # noqa: E731
    assert torch.autograd.gradcheck(build, (shares, properties))


@pytest.mark.parametrize(
    ("memberships", "tissues", "message"),
    [
        (torch.rand(2, 3, 3), ["liver"], "shape"),
        (torch.full((2, 2, 2, 2), 0.5), ["liver"], "need as many tissues"),
        (torch.full((1, 2, 2, 2), 255.0), ["liver"], "add up to 1"),
        (torch.full((1, 2, 2, 2), -0.1), ["liver"], "negative"),
        (torch.full((1, 2, 2, 2), math.nan), ["liver"], "NaN"),
        (torch.full((1, 2, 2, 2), 0.5), ["cheese"], "No tissue is called"),
    ],
)
@pytest.mark.bad_input
def test_bad_memberships(memberships, tissues, message):
    with pytest.raises(InputError, match=message):
        AcousticMedium.from_memberships(memberships, tissues, torch.eye(4))


def test_a_tissue_of_ones_own():
    mine = Tissue("phantom", 1000, 1600, 1.6, 0.7, 1.1, -20)
    maps = AcousticMedium.from_memberships(np.ones((1, 2, 2, 2)), [mine], np.eye(4)).maps
    assert maps[:, 0, 0, 0].tolist() == pytest.approx([1.6, 0.7, 1.1, 0.1])


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros((4, 4)), "last row"),
        (np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
        (np.eye(3), "4x4"),
        (np.full((4, 4), np.nan), "NaN"),
    ],
)
def test_bad_geometry(matrix, message):
    with pytest.raises(InputError, match=message):
        AcousticMedium(torch.rand(4, 2, 2, 2), matrix)


@pytest.mark.parametrize("maps", [torch.rand(3, 4, 4, 4), torch.rand(4, 4, 4), torch.rand(4, 1, 4, 4)])
@pytest.mark.bad_input
def test_maps_of_a_wrong_shape(maps):
    with pytest.raises(InputError, match="maps"):
        AcousticMedium(maps, torch.eye(4))


MEMORY = """
import resource, sys
import numpy as np, torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
from diffus.medium import AcousticMedium
n = 160
x = np.linspace(-1, 1, n, dtype=np.float32)
r = np.sqrt(x[:, None, None] ** 2 + x[None, :, None] ** 2 + x[None, None, :] ** 2)
volume = np.select([r < 0.2, r < 0.5, r < 0.8], [10, 90, 60], -1000 if sys.argv[1] == "ct" else 0).astype(np.int16)
del r
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
make = AcousticMedium.from_ct if sys.argv[1] == "ct" else AcousticMedium.from_mri
medium = make(volume, np.eye(4))
assert medium.sample(torch.full((1, 3), 80.0))[0] > 1.5
assert medium.maps[0, 80, 80, 80] > 1.5
print((peak() - before) / n**3 * 256**3 / 1e9)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="skipped: the resource module is not there on Windows")
@pytest.mark.parametrize("kind", ["ct", "mri"])
def test_a_256_cube_fits_in_two_gigabytes(kind):
    run = subprocess.run(
        [sys.executable, "-c", MEMORY, kind, str(ENGINE)], capture_output=True, text=True, check=True, timeout=120
    )
    assert float(run.stdout) < 2.0
