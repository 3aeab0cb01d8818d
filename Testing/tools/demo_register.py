"""The registration half of the headless case: a tracked sweep of the same brain, a guess that is off, and the way back.

The sweep is drawn from grey and white matter maps by other physics than anything the registration uses; the MRI that it
is registered to is the T1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import slicer
import slicer.util
from diffus.io.atomic import replacing
from diffus.io.transforms import write_transform
from diffus.register.registration import RegistrationResult, RigidRegistration, Settings
from diffus.sweep.sweep import write_sweep
from DiffUSLib.register.load_sweep import loadSweep
from DiffUSLib.register.overlay import OverlaySource
from DiffUSLib.scene.transforms import toVtk
from rich.progress import Progress
from simulated_sweep import SimulatedCase, displaced, mni152, simulate

SEED = 4
SWEEP = {"frames": 24, "size": 240, "mm_per_pixel": 0.36}
OFF_MM, OFF_DEG = 12.0, 10.0
SETTINGS = Settings()
SHARE_OF_WHITE = 0.55  # T1 level between fluid and brain, relative to white matter
WINDOW = 1.5  # the MRI's white in the picture, relative to white matter: about as grey as the ultrasound
EDGE, NODES = "#ffb000", ("First guess of MRI to ultrasound", "Registered MRI to ultrasound")
NAMES = ("tracked_sweep.igs.mha", "first_guess.tfm", "mri_to_reference.tfm", "registration.json", "registration.png")


@dataclass
class Registered:
    """The MRI (K, J, I), the sweep with its truth, the guess it started from (4, 4), and what came out."""

    voxels: np.ndarray
    ijk_to_ras: np.ndarray
    truth: SimulatedCase
    initial: np.ndarray
    result: RegistrationResult

    @property
    def found(self) -> np.ndarray:
        return self.result.mri_to_reference.numpy()


def run(scene, mri, folder: Path, console) -> None:
    """Simulates, registers, prints what came out, and puts files into `folder` and nodes into the scene."""
    done = register(console)
    say(done, console)
    write_files(done, folder)
    draw(done, folder / NAMES[4])
    add_to_scene(done, scene, mri, folder)


def register(console) -> Registered:
    voxels, grey, white, ijk_to_ras = mni152()
    with Progress(console=console, transient=True) as bar:
        task = bar.add_task("simulating a tracked sweep", total=1.0)
        truth = simulate(grey, white, ijk_to_ras, seed=SEED, **SWEEP)
        initial = displaced(truth, OFF_MM, OFF_DEG, SEED)
        registration = RigidRegistration(voxels, ijk_to_ras, truth.sweep, initial=initial, settings=SETTINGS)
        for state in registration:
            bar.update(task, completed=state.progress, description=f"registering: {state.stage}")
    return Registered(voxels, ijk_to_ras, truth, initial, registration.result)


def say(done: Registered, console) -> None:
    result, judgement = done.result, done.result.judgement
    start, end = done.truth.error_mm(done.initial), done.truth.error_mm(done.found)
    console.print(
        f"Tracked sweep of {len(done.truth.sweep)} frames, MRI put {OFF_MM:g} mm and {OFF_DEG:g} degrees off. "
        f"Target error: {start:.2f} mm at the start, {end:.2f} mm after {result.seconds:.0f} s of registration."
    )
    expected = "not known"
    if judgement.expected_error_mm is not None:
        expected = f"{judgement.expected_error_mm:.2f} mm, at worst {judgement.expected_error_worst_mm:.2f} mm"
    console.print(f"Verdict: {judgement.verdict} ({'; '.join(judgement.reasons)}); expected error {expected}.")


def write_files(done: Registered, folder: Path) -> None:
    """What the command line takes and gives: the sweep, the first guess, the result and its report."""
    write_sweep(done.truth.sweep, folder / NAMES[0])
    write_transform(folder / NAMES[1], done.initial)
    write_transform(folder / NAMES[2], done.found)
    with replacing(folder / NAMES[3]) as temporary:
        temporary.write_text(json.dumps(done.result.report(), indent=2) + "\n")


def add_to_scene(done: Registered, scene, mri, folder: Path) -> None:
    """The sweep with its browser, first guess and result as transforms, the picture, and the module's choices."""
    from DiffUSLib.register.parameter_node import RegisterParameterNode
    from DiffUSLib.register.parameters import StartFrom

    browser = loadSweep(folder / NAMES[0])
    guess, result = (add_transform(scene, *each) for each in zip(NODES, (done.initial, done.found)))
    add_picture(scene, folder / NAMES[4])
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "DiffUSRegister")
    node.SetSingletonTag("DiffUSRegister")
    node.SetModuleName("DiffUSRegister")
    parameters = RegisterParameterNode(node)
    parameters.inputVolume, parameters.ultrasound = mri, browser
    parameters.startFrom, parameters.initialTransform = StartFrom.TRANSFORM, guess
    result.SetDescription(f"{done.result.judgement.verdict}: {'; '.join(done.result.judgement.reasons)}")


def add_transform(scene, name: str, mri_to_reference: np.ndarray):
    node = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", name)
    node.SetMatrixTransformToParent(toVtk(mri_to_reference))
    return node


def add_picture(scene, path: Path) -> None:
    """The picture as a volume node, its upper left corner at the origin."""
    from PIL import Image

    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Registration before and after")
    slicer.util.updateVolumeFromArray(node, np.asarray(Image.open(path).convert("RGB"))[None])
    node.CreateDefaultDisplayNodes()


# --- the picture


def draw(done: Registered, path: Path) -> None:
    """Two frames, before and after: with the edges of the MRI over them, and as a checkerboard with the MRI."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    sweep = done.truth.sweep
    source = OverlaySource(
        sweep.frames.numpy(),
        sweep.mask.numpy(),
        sweep.image_to_reference.numpy(),
        done.voxels,
        done.ijk_to_ras,
        0.0,
        WINDOW * white_matter(done.voxels),
    )
    plt.style.use("dark_background")
    figure, axes = plt.subplots(2, 4, figsize=(15, 8), layout="constrained")
    for row, number in zip(axes, (len(sweep) // 4, 3 * len(sweep) // 4)):
        for column, (pose, title) in enumerate(((done.initial, "before"), (done.found, "after"))):
            error = done.truth.error_mm(pose)
            draw_edges(row[column], source, number, pose)
            draw_checkerboard(row[2 + column], source, number, pose)
            row[column].set_title(f"Ultrasound, edges of the MRI\n{title}: {error:.1f} mm off at the targets")
            row[2 + column].set_title(f"Checkerboard: ultrasound, MRI\n{title}")
        row[0].set_ylabel(f"frame {number}", visible=True)
    figure.suptitle(
        f"DiffUS: registration of a simulated sweep, {done.result.judgement.verdict}. Not for clinical decisions"
    )
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def white_matter(voxels: np.ndarray) -> float:
    return float(np.percentile(voxels[voxels > 0], 90))


def draw_edges(axes, source: OverlaySource, number: int, mri_to_reference: np.ndarray) -> None:
    """The frame, and where the MRI has the border between brain and fluid."""
    fan = source.masks[number if len(source.masks) > 1 else 0]
    mri = np.where(fan, source.volume(number, mri_to_reference), np.nan)
    axes.imshow(source.ultrasound(number), cmap="gray", vmin=0, vmax=255)
    axes.contour(mri, levels=[255 * SHARE_OF_WHITE / WINDOW], colors=EDGE, linewidths=1.1)
    axes.set(xticks=[], yticks=[])


def draw_checkerboard(axes, source: OverlaySource, number: int, mri_to_reference: np.ndarray) -> None:
    """The frame in every other field of 15 mm, the MRI in the rest and around the fan."""
    axes.imshow(source.checkerboard(number, mri_to_reference, 15.0), cmap="gray", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
