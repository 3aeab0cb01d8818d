"""The registration half of the headless case: a tracked sweep of the same brain, a guess that is off, and the way back.

The sweep is drawn from grey and white matter maps by other physics than anything the registration uses; the MRI that it
is registered to is the T1.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import demo_pictures
import numpy as np
import slicer
import slicer.util
from diffus.io.atomic import replacing
from diffus.io.transforms import write_transform
from diffus.register.registration import RegistrationResult, RigidRegistration, Settings
from diffus.sweep.simulated import SimulatedCase, displaced, simulate
from diffus.sweep.sweep import write_sweep
from DiffUSLib.register.load_sweep import loadSweep
from DiffUSLib.scene.transforms import toVtk
from rich.progress import Progress
from support.heads import mni152

SEED = 4
SWEEP = {"frames": 24, "size": 240, "mm_per_pixel": 0.36}
OFF_MM, OFF_DEG = 12.0, 10.0
SETTINGS = Settings()
NODES = ("First guess of MRI to ultrasound", "Registered MRI to ultrasound")
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
    print_result(done, console)
    write_files(done, folder)
    demo_pictures.draw_registration(done, folder / NAMES[4])
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


def print_result(done: Registered, console) -> None:
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
    parameters = RegisterParameterNode(module_node(scene, "DiffUSRegister"))
    parameters.inputVolume, parameters.ultrasound = mri, browser
    parameters.startFrom, parameters.initialTransform = StartFrom.TRANSFORM, guess
    result.SetDescription(f"{done.result.judgement.verdict}: {'; '.join(done.result.judgement.reasons)}")


def module_node(scene, module: str):
    """The node of a module's parameters, in which it finds its choices when the scene is opened in Slicer."""
    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", module)
    node.SetSingletonTag(module)
    node.SetModuleName(module)
    return node


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
