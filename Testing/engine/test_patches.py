"""LC2 in patches: the fast forms against plain least squares, autograd and each other."""

import numpy as np
import pytest
import torch
from diffus.geometry.pose import twist_to_matrix
from diffus.register.channels import ChannelVolume, prepare_volume, smoothed_channels
from diffus.register.patches import (
    log_likelihood,
    make_patches,
    normal_equations,
    patch_similarity,
    patch_systems,
    score_poses,
)
from diffus.register.search import PoseSpace, distinct, refine
from diffus.sweep.sweep import TrackedSweep
from scipy import ndimage


@pytest.fixture(scope="module")
def blobs():
    """A smooth random volume and five frames that show its first channel, in a frame turned by 40 degrees."""
    rng = np.random.default_rng(3)
    maps = np.stack([ndimage.gaussian_filter(rng.standard_normal((48, 52, 50)), s) for s in (2.0, 2.5)])
    maps = (maps / maps.std((1, 2, 3), keepdims=True)).astype(np.float32)
    ijk_to_ras = torch.tensor([[-1.1, 0, 0, 25], [0, 0.9, 0, -20], [0, 0, 1.0, -22], [0, 0, 0, 1]], dtype=torch.float64)
    border = ijk_to_ras.clone()
    border[:3, 3] -= ijk_to_ras[:3, :3].sum(1)
    grid = torch.nn.functional.pad(torch.from_numpy(maps).movedim(0, -1), (0, 0, 1, 1, 1, 1, 1, 1))
    volume = ChannelVolume(grid, border)
    truth = twist_to_matrix(torch.tensor([2.0, -1, 3, 0.4, 0.4, 0.4], dtype=torch.float64))
    poses = torch.eye(4, dtype=torch.float64).repeat(5, 1, 1)
    poses[:, 0, 0] = poses[:, 1, 1] = 0.8
    poses[:, :3, 3] = torch.tensor([-14.0, -14.0, -8.0]) + torch.tensor([0.0, 0.0, 4.0]) * torch.arange(5)[:, None]
    r, c = torch.meshgrid(torch.arange(36.0), torch.arange(36.0), indexing="ij")
    pixels = torch.stack([c, r, torch.zeros_like(r), torch.ones_like(r)], -1).double()
    points = torch.einsum("ij,kjl,hwl->khwi", truth, poses, pixels)[..., :3]
    values = volume.sample(points.float())
    frames = (0.5 + 0.1 * values[..., 0]).clamp(0, 1)
    sweep = TrackedSweep.from_arrays(frames.numpy(), poses, mask=torch.ones(36, 36))
    return sweep, volume, truth


def finished(work):
    """Runs a generator to its end and returns its value."""
    while True:
        try:
            next(work)
        except StopIteration as end:
            return end.value


def space_around(initial):
    return PoseSpace(initial, torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64), 12.0)


def test_patch_similarity_is_partial_least_squares(blobs):
    sweep, _, _ = blobs
    patches = make_patches(sweep, torch.arange(5), 0.8, 9)
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(*patches.valid.shape, 1, 2, generator=generator)
    similarity, _ = patch_similarity(patches, values, ridge=0.0)
    line = np.linspace(-1, 1, 9)
    y, x = (a.ravel() for a in np.meshgrid(line, line, indexing="ij"))
    trend = np.stack([np.ones(81), x, y, x * y, x * x, y * y], 1)
    for n in (0, 7, len(patches) - 1):
        u = patches.target[n].double().numpy()
        both = np.concatenate([trend, values[n, :, 0].double().numpy()], 1)
        residual = u - both @ np.linalg.lstsq(both, u, rcond=None)[0]
        assert float(similarity[n, 0]) == pytest.approx(1 - (residual @ residual) / (u @ u), abs=1e-4)


def test_sampling_gradient_is_that_of_autograd(blobs):
    _, volume, _ = blobs
    points = (torch.rand(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64) - 0.5) * 20
    points.requires_grad_()
    values, slope = volume.sample(points, gradient=True)
    for channel in range(2):
        (expected,) = torch.autograd.grad(values[:, channel].sum(), points, retain_graph=True)
        assert torch.allclose(slope[:, channel].double(), expected, atol=1e-5)


def test_outside_of_the_volume_is_zero(blobs):
    _, volume, _ = blobs
    far = torch.tensor([[500.0, 0.0, 0.0], [0.0, -400.0, 0.0]])
    assert volume.sample(far).abs().max() == 0
    assert volume.nearest(far, torch.eye(4, dtype=torch.float64)[None]).abs().max() == 0


def test_slope_of_the_likelihood_is_exact_where_the_pose_is_turned_by_40_degrees(blobs):
    sweep, volume, truth = blobs
    patches = make_patches(sweep, torch.arange(5), 0.8, 9)
    space = space_around(truth)
    start = space.step(truth, torch.tensor([0.7, -0.5, 0.4, 0.3, -0.6, 0.5], dtype=torch.float64))
    system = normal_equations(patches, volume, start[None], space.centre, space.radius_mm)
    xi = torch.zeros(6, dtype=torch.float64, requires_grad=True)
    pose = space.step(start, xi).float()
    values = volume.sample(patches.points @ pose[:3, :3].T + pose[:3, 3])
    similarity, _ = patch_similarity(patches, values[:, :, None])
    total = -0.5 * (torch.log1p(-similarity[:, 0]) * patches.weight).sum()
    (expected,) = torch.autograd.grad(total, xi)
    assert float(similarity.detach().max()) < 0.99
    assert torch.allclose(system.slope[0], expected, rtol=2e-2, atol=2e-2 * float(expected.abs().max()))


def test_curvature_is_that_of_the_projected_residual(blobs):
    sweep, volume, truth = blobs
    patches = make_patches(sweep, torch.arange(5), 0.8, 9).select(torch.arange(4))
    space = space_around(truth)
    start = space.step(truth, torch.tensor([0.4, 0.3, -0.3, 0.2, 0.2, -0.4], dtype=torch.float64))
    hessian, _, similarity = patch_systems(patches, volume, start, space.centre, space.radius_mm)
    matrix = start.float()
    values, _ = volume.sample(patches.points @ matrix[:3, :3].T + matrix[:3, 3], gradient=True)
    _, weights = patch_similarity(patches, values[:, :, None])
    for n in range(4):

        def explained(xi, n=n):
            pose = space.step(start, xi).float()
            moved = volume.sample(patches.points[n] @ pose[:3, :3].T + pose[:3, 3])
            return moved @ weights[n, 0]

        jacobian = torch.autograd.functional.jacobian(explained, torch.zeros(6, dtype=torch.float64)).double()
        known = torch.cat([patches.basis[n].T, values[n]], 1).double()
        q, _ = torch.linalg.qr(known)
        off = jacobian - q @ (q.T @ jacobian)
        left = patches.energy[n] * patches.count[n] * (1 - similarity[n])
        expected = off.T @ off * float(patches.weight[n] / left)
        assert torch.allclose(hessian[n].double(), expected, rtol=0.05, atol=0.05 * float(expected.abs().max()))


def test_nearest_scores_rank_the_truth_first_and_lm_returns_to_it(blobs):
    sweep, volume, truth = blobs
    patches = make_patches(sweep, torch.arange(5), 0.8, 9)
    space = space_around(truth)
    poses = space.sample(200, seed=4)
    scores = score_poses(patches, volume, poses)
    assert int(scores.argmax()) == 0
    off = space.step(truth, torch.tensor([[1.5, -1.0, 0.8, 0.7, -1.0, 0.6]], dtype=torch.float64))
    end = finished(refine(space, patches, volume, off, 15))
    assert float(space.distance(end.pose[0], truth)) < 0.05
    assert torch.equal(end.value > 0.99 * log_likelihood(patches, end.similarity).double(), torch.tensor([True]))


def test_pose_space_bounds_distance_and_samples():
    initial = twist_to_matrix(torch.tensor([10.0, 5, 0, 0.2, 0, 0.1], dtype=torch.float64))
    space = PoseSpace(initial, torch.tensor([30.0, -10, 5], dtype=torch.float64), 25.0, 20.0, 15.0)
    poses = space.sample(512, seed=9)
    shift, angle = space.away(poses)
    assert torch.equal(poses[0], initial)
    assert 19 < shift.max() <= 20.000001
    assert 14 < angle.max() <= 15.000001
    assert torch.equal(space.sample(512, seed=9), poses)
    along = space.step(initial, torch.tensor([3.0, 0, 0, 0, 0, 0], dtype=torch.float64))
    assert float(space.distance(initial, along)) == pytest.approx(3.0)
    kept = distinct(space, poses, torch.arange(512.0), 5.0, 40)
    apart = space.distance(poses[kept][:, None], poses[kept][None]) + torch.eye(len(kept)) * 99
    assert kept[0] == 511
    assert apart.min() >= 5.0


def test_the_exponential_has_exact_gradients_at_zero():
    zero = torch.zeros(6, dtype=torch.float64)
    jacobian = torch.autograd.functional.jacobian(twist_to_matrix, zero)
    expected = torch.zeros(4, 4, 6, dtype=torch.float64)
    expected[0, 3, 0] = expected[1, 3, 1] = expected[2, 3, 2] = 1
    expected[2, 1, 3] = expected[0, 2, 4] = expected[1, 0, 5] = 1
    expected[1, 2, 3] = expected[2, 0, 4] = expected[0, 1, 5] = -1
    assert torch.equal(jacobian, expected)
    assert torch.autograd.gradcheck(twist_to_matrix, (zero.requires_grad_(),))


# --- the volume at one resolution


def smoothed(data, spacing, sigma, points, kind="generic", margin=100.0):
    source = prepare_volume(data, np.diag([spacing, spacing, spacing, 1.0]), kind)
    return source, finished(smoothed_channels(source, points, margin, sigma))


@pytest.mark.parametrize(("spacing", "sigma", "tolerance"), [(1.0, 0.8, 1e-4), (0.4, 1.2, 0.1)])
def test_a_level_is_the_smoothed_volume_on_its_own_grid_or_a_coarser_one(spacing, sigma, tolerance):
    """The coarser grid costs some per cent of the finest structure there can be: white noise, smoothed."""
    rng = np.random.default_rng(5)
    data = ndimage.gaussian_filter(rng.standard_normal((50, 54, 58)), 0.6 / spacing).astype(np.float32) * 100
    points = spacing * (10 + 35 * torch.rand(300, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64))
    source, volume = smoothed(data, spacing, sigma, points)
    assert (volume.size[0] == 52) == (spacing == 1.0)
    assert source.scale == pytest.approx(data.std(), rel=1e-5)
    smooth = ndimage.gaussian_filter(data, sigma / spacing, mode="nearest") / data.std()
    slope = np.sqrt(sum(g * g for g in np.gradient(smooth, spacing)))
    for channel, whole in enumerate((smooth, slope)):
        expected = ndimage.map_coordinates(whole, (points / spacing).numpy().T[::-1], order=1)
        off = volume.sample(points.float())[:, channel].numpy() - expected
        assert np.sqrt((off**2).mean()) < tolerance * (1 + 2 * channel) * expected.std()
        assert abs(off.mean()) < tolerance * (1 + 2 * channel) * expected.std()


def test_a_level_holds_only_what_lies_around_the_points():
    data = np.random.default_rng(0).random((40, 40, 40))
    point = torch.full((1, 3), 20.0, dtype=torch.float64)
    _, volume = smoothed(data, 1.0, 0.5, point, margin=5.0)
    assert tuple(volume.size) == (13, 13, 13)  # 5 mm to each side, and the border of zeros
    assert smoothed(data, 1.0, 0.5, point + 100, margin=5.0)[1] is None


def test_whole_numbers_are_read_as_they_are_and_ct_within_its_window():
    hounsfield = np.random.default_rng(0).integers(-3000, 3000, (20, 20, 20)).astype(np.int16)
    source, whole = smoothed(hounsfield, 1.0, 0.5, torch.full((1, 3), 10.0, dtype=torch.float64), kind="ct")
    assert source.data is hounsfield
    clipped = np.clip(hounsfield, -200.0, 1200.0) + 200
    assert source.scale == pytest.approx(clipped.std(), rel=1e-5)
    middle = whole.table.reshape(*whole.size, 2)[1:-1, 1:-1, 1:-1, 0].numpy()
    assert np.abs(middle - ndimage.gaussian_filter(clipped, 0.5, mode="nearest") / clipped.std()).max() < 1e-5
