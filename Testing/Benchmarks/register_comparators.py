"""Other registration tools beside ours on the same cases in one run: accuracy, success, seconds.

SimpleITK and itk-elastix register by mutual information, convexAdam by MIND; all get the sweep compounded to 1 mm.
itk-elastix and convexAdam are optional: `.venv/bin/pip install -e .[bench]`.
"""

from __future__ import annotations

import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from Benchmarks.measure import console, report
from Benchmarks.register_cases import SHARED, good_cases, splatted

FLIP = np.diag([-1.0, -1.0, 1.0, 1.0])


def compound(sweep) -> sitk.Image:
    """The sweep in a grid of 1 mm in the reference frame, for ITK: in LPS, with the axes in their usual directions."""
    array, ijk_to_ras = splatted(sweep)
    image = sitk.GetImageFromArray(np.ascontiguousarray(array[:, ::-1, ::-1]))
    last = np.array([array.shape[2] - 1, array.shape[1] - 1, 0, 1])
    image.SetOrigin((FLIP @ ijk_to_ras @ last)[:3].tolist())
    image.SetSpacing(np.diag(ijk_to_ras)[:3].tolist())
    return image


def moving_image(case) -> sitk.Image:
    image = sitk.GetImageFromArray(case.volume)
    lps = FLIP @ case.ijk_to_ras
    spacing = np.linalg.norm(lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    return image


def start_transform(case, fixed: sitk.Image) -> sitk.Euler3DTransform:
    """reference_to_mri of the first guess, in LPS, about the middle of the compounded sweep."""
    matrix = FLIP @ np.linalg.inv(case.initial) @ FLIP
    middle = np.array(fixed.TransformContinuousIndexToPhysicalPoint([(n - 1) / 2 for n in fixed.GetSize()]))
    transform = sitk.Euler3DTransform()
    transform.SetCenter(middle.tolist())
    transform.SetMatrix(matrix[:3, :3].ravel().tolist(), 1e-6)
    transform.SetTranslation((matrix[:3, :3] @ middle + matrix[:3, 3] - middle).tolist())
    return transform


def to_matrix(transform) -> np.ndarray:
    """mri_to_reference, RAS, from an ITK transform of reference to MRI points, LPS."""
    origin = np.array(transform.TransformPoint((0.0, 0.0, 0.0)))
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.array(transform.TransformPoint(e)) - origin for e in np.eye(3).tolist()], 1)
    matrix[:3, 3] = origin
    return np.linalg.inv(FLIP @ matrix @ FLIP)


def by_diffus(case, fixed, moving) -> np.ndarray:
    from diffus.register.registration import register

    return register(case.volume, case.ijk_to_ras, case.truth.sweep, initial=case.initial).mri_to_reference.numpy()


def by_simpleitk(case, fixed, moving) -> np.ndarray:
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricFixedMask(sitk.Cast(fixed > 0, sitk.sitkUInt8))
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, 1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(2.0, 1e-3, 200)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([3, 1.5, 0.5])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start_transform(case, fixed), inPlace=False)
    return to_matrix(method.Execute(fixed, moving))


def by_elastix(case, fixed, moving) -> np.ndarray:
    import itk

    start = start_transform(case, fixed)
    resampled = sitk.Resample(moving, fixed, start, sitk.sitkLinear, 0.0)
    images = []
    for image, kind in ((fixed, np.float32), (resampled, np.float32), (fixed > 0, np.uint8)):
        converted = itk.image_from_array(sitk.GetArrayFromImage(image).astype(kind))
        converted.SetOrigin(image.GetOrigin())
        converted.SetSpacing(image.GetSpacing())
        images.append(converted)
    parameters = itk.ParameterObject.New()
    parameters.AddParameterMap(parameters.GetDefaultParameterMap("rigid", 4))
    still, moved, mask = images
    _, result = itk.elastix_registration_method(
        still, moved, parameter_object=parameters, fixed_mask=mask, log_to_console=False
    )
    found = result.GetParameterMap(0)
    extra = sitk.Euler3DTransform()
    extra.SetCenter([float(v) for v in found["CenterOfRotationPoint"]])
    extra.SetParameters([float(v) for v in found["TransformParameters"]])
    return to_matrix(sitk.CompositeTransform([start, extra]))


def by_convexadam(case, fixed, moving) -> np.ndarray:
    """convexAdam's displacement field, made rigid by least squares over the fan."""
    from convexAdam.convex_adam_MIND import convex_adam_pt
    from diffus.register.landmarks import rigid_from_landmarks
    from torch import from_numpy

    start = start_transform(case, fixed)
    resampled = sitk.Resample(moving, fixed, start, sitk.sitkLinear, 0.0)
    still, moved = (sitk.GetArrayFromImage(image).astype(np.float32) for image in (fixed, resampled))
    field = np.asarray(convex_adam_pt(from_numpy(still), from_numpy(moved), verbose=False))
    where = np.argwhere(still > 0)[::50]
    shift = field[tuple(where.T)]
    here = np.array(fixed.GetOrigin()) + where[:, ::-1] * fixed.GetSpacing()
    there = here + shift[:, ::-1] * fixed.GetSpacing()
    through = np.array([start.TransformPoint(p) for p in there.tolist()])
    to_mri = rigid_from_landmarks(from_numpy(here), from_numpy(through)).numpy()
    return np.linalg.inv(FLIP @ to_mri @ FLIP)


TOOLS = {
    "DiffUS": (by_diffus, "torch"),
    "SimpleITK MI": (by_simpleitk, "SimpleITK"),
    "itk-elastix MI": (by_elastix, "itk-elastix"),
    "convexAdam MIND": (by_convexadam, "convexAdam"),
}


def installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def run(folder: Path) -> None:
    """Writes register_comparators.csv into `folder`: one start of every sweep."""
    if not SHARED.is_dir():
        console.print(f"skipped: the shared test data is not present at {SHARED}")
        return
    tools = {name: tool for name, (tool, package) in TOOLS.items() if installed(package)}
    for name in TOOLS.keys() - tools.keys():
        console.print(f"skipped {name}: not installed; .venv/bin/pip install -e .\\[bench]")
    found: dict[str, list] = {name: [] for name in tools}
    for case in good_cases(1):
        fixed, moving = compound(case.truth.sweep), moving_image(case)
        for name, tool in tools.items():
            started = time.perf_counter()
            error = case.error_mm(tool(case, fixed, moving))
            found[name].append((error, time.perf_counter() - started))
            console.print(f"{case.name}  {name}  {error:.2f} mm  {found[name][-1][1]:.0f} s")
    rows = []
    for name, results in found.items():
        error, seconds = np.array(results).T
        figures = (np.median(error), error.mean(), 100 * np.mean(error < 2), seconds.mean())
        rows.append([name, *(f"{figure:.1f}" for figure in figures)])
    header = ["tool", "median mm", "mean mm", "under 2 mm, %", "seconds"]
    report(folder, "register_comparators", "The same sweeps and starts, about 17 mm off", header, rows)
