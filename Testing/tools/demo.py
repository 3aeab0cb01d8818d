"""The headless case: a real MRI in a real MRML scene, a probe on the head, a simulated sweep, files for 3D Slicer.

Then a tracked sweep of the same brain is registered to the MRI (demo_register.py).

Usage: python Testing/tools/demo.py [FOLDER] [--pictures]
    FOLDER      where the files go (default: demo)
    --pictures  also renews the project's own pictures in Resources/
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / folder) for folder in ("Testing", "DiffUSRender", "DiffUSRegister")]

import demo_pictures
import demo_register
import headless
import numpy as np
import slicer
import slicer.util
import torch
from diffus.io.atomic import replacing
from DiffUSLib.kinds import MediumKind
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.scene.transforms import nodeToWorld, toVtk
from rich.console import Console
from rich.progress import track

# Slicer's own slice views, with their colours.
VIEWS = {"Red": ("Axial", 0xF34A33), "Yellow": ("Sagittal", 0xEDD54C), "Green": ("Coronal", 0x6EB04B)}
CONTACT = (30.0, 5.0, 75.0)  # RAS mm, near the skin over the right frontal lobe
FRAMES = 48
TILT_DEG = 22.0  # the probe rocks about its face, from one side to the other
FRAMES_PER_S = 12.0

console = Console()


@dataclass
class Case:
    """One case: the scene, its nodes, and what the sweep recorded."""

    scene: object
    mri: object
    parameters: object
    logic: RenderLogic
    slices: object = None
    poses: object = None
    milliseconds: float = 0.0


def main() -> None:
    arguments = [argument for argument in sys.argv[1:] if argument != "--pictures"]
    folder = Path(arguments[0] if arguments else "demo").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    torch.set_num_threads(1)  # a frame is small: on a busy machine, a second thread costs more than it brings
    case = prepare()
    sweep(case)
    add_views(case)
    write_sequences(case, folder)
    demo_register.run(case.scene, case.mri, folder, console)
    write_scene(case, folder / "diffus_demo.mrb")
    panel = folder / "panel.png"
    demo_pictures.draw_panel(case, panel, np.linspace(-TILT_DEG, TILT_DEG, FRAMES))
    if "--pictures" in sys.argv[1:]:
        demo_pictures.renew(case, panel, folder / demo_register.NAMES[4])
    seconds = time.perf_counter() - started
    pixels = " x ".join(map(str, slicer.util.arrayFromVolume(case.parameters.outputSlice).shape[1:]))
    console.print(
        f"{FRAMES} frames of {pixels} pixels, {case.milliseconds:.0f} ms each on one core; {seconds:.0f} s in all."
    )
    pictures = f"{panel} and {demo_register.NAMES[4]} beside it"
    console.print(f"Open {folder / 'diffus_demo.mrb'} in 3D Slicer, or look at {pictures}.")


# --- the case


def prepare() -> Case:
    """A scene with the MNI152 head's MRI and a craniotomy probe on it."""
    from DiffUSLib.render.parameter_node import RenderParameterNode

    scene = new_scene()
    mri = load_mri(scene)
    parameters = RenderParameterNode(demo_register.module_node(scene, "DiffUSRender"))
    parameters.inputVolume, parameters.kind = mri, MediumKind.MRI
    logic = RenderLogic()
    logic.createProbe(parameters)
    logic.placeOnSkin(parameters, np.array(CONTACT))
    face = nodeToWorld(parameters.probeTransform)[:3, 3]
    console.print(f"MRI {mri.GetName()}, probe's face on the head at RAS {', '.join(f'{x:.0f}' for x in face)} mm.")
    return Case(scene, mri, parameters, logic)


def new_scene():
    scene = headless.newScene()
    # Slicer's Sequences module registers this one; its logic would make second proxies while the sweep is recorded.
    scene.RegisterNodeClass(slicer.vtkMRMLSequenceBrowserNode())
    return scene


def load_mri(scene):
    """The ICBM 152 (2009a) T1 at 1 mm that nilearn's package carries."""
    data = Path(find_spec("nilearn").origin).parent / "datasets" / "data"
    storage = slicer.vtkMRMLVolumeArchetypeStorageNode()
    storage.SetFileName(str(data / "mni_icbm152_t1_tal_nlin_sym_09a_converted.nii.gz"))
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "MNI152 T1")
    node.CreateDefaultDisplayNodes()
    if not storage.ReadData(node):
        raise SystemExit("nilearn's MNI152 T1 cannot be read; run make again after removing .venv.")
    node.GetDisplayNode().AutoWindowLevelOff()
    node.GetDisplayNode().SetWindowLevel(255, 127.5)
    return node


def sweep(case: Case) -> None:
    """Rocks the probe about its face and records every simulated slice with its pose."""
    parameters, probe = case.parameters, case.parameters.probeTransform
    case.slices = add_sequence(case.scene, "Simulated ultrasound sweep")
    case.poses = add_sequence(case.scene, "Probe sweep")
    start = nodeToWorld(probe)
    took = []
    tilts = np.radians(np.linspace(-TILT_DEG, TILT_DEG, FRAMES))
    for number, angle in enumerate(track(tilts, "rendering the sweep", console=console, transient=True)):
        tilt = np.eye(4)
        tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
        began = time.perf_counter()
        probe.SetMatrixTransformToParent(toVtk(start @ tilt))
        output = case.logic.render(parameters)
        took.append(1000 * (time.perf_counter() - began))
        value = f"{number / FRAMES_PER_S:.3f}"
        case.slices.SetDataNodeAtValue(output, value)
        case.poses.SetDataNodeAtValue(probe, value)
    case.milliseconds = float(np.median(took))
    add_browser(case)


def add_sequence(scene, name: str):
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", name)
    node.SetIndexName("time")
    node.SetIndexUnit("s")
    return node


def add_browser(case: Case) -> None:
    """Replays both sequences into the very nodes that the sweep moved; stops at the middle frame."""
    browser = case.scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode", "Simulated sweep")
    browser.SetAndObserveMasterSequenceNodeID(case.poses.GetID())
    browser.AddSynchronizedSequenceNodeID(case.slices.GetID())
    browser.AddProxyNode(case.parameters.probeTransform, case.poses, False)
    browser.AddProxyNode(case.parameters.outputSlice, case.slices, False)
    browser.SetPlaybackRateFps(FRAMES_PER_S)
    browser.SetSelectedItemNumber(FRAMES // 2)
    case.parameters.probeTransform.CopyContent(case.poses.GetNthDataNode(FRAMES // 2))
    case.parameters.outputSlice.CopyContent(case.slices.GetNthDataNode(FRAMES // 2))


def add_views(case: Case) -> None:
    """What Slicer shows when it opens the scene: the simulated slice in the red view, the MRI in the other two."""
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(case.scene)
    middle = nodeToWorld(case.parameters.probeTransform) @ (0, case.parameters.depthMm / 2, 0, 1)
    for name, (orientation, color) in VIEWS.items():
        view = add_view_node(case.scene, "vtkMRMLSliceNode", name)
        view.SetOrientation(orientation)
        view.SetLayoutLabel(name[0])
        view.SetLayoutColor(*(byte / 255 for byte in color.to_bytes(3, "big")))
        view.JumpSliceByCentering(*middle[:3])
        layers = add_view_node(case.scene, "vtkMRMLSliceCompositeNode", name)
        layers.SetBackgroundVolumeID(case.mri.GetID())
        if name == "Red":
            case.parameters.sliceView, case.parameters.driveSliceView = view, True
    case.logic.updateDriving(case.parameters)


def add_view_node(scene, class_name: str, view: str):
    """A node that becomes that of Slicer's view of this name."""
    node = scene.CreateNodeByClass(class_name)
    node.UnRegister(None)
    node.SetName(view)
    node.SetLayoutName(view)
    node.SetSingletonTag(view)
    return scene.AddNode(node)


# --- files


def write_sequences(case: Case, folder: Path) -> None:
    """The slices as .seq.nrrd and the poses as .seq.mha, as core Slicer reads them."""
    for sequence, name in ((case.slices, "simulated_slices.seq.nrrd"), (case.poses, "probe_poses.seq.mha")):
        sequence.AddDefaultStorageNode()
        storage = sequence.GetStorageNode()
        with replacing(folder / name) as temporary:
            storage.SetFileName(str(temporary))
            if not storage.WriteData(sequence):
                raise SystemExit(f"{folder / name} cannot be written; check the folder.")
        storage.SetFileName(str(folder / name))
        console.print(f"{name}: {sequence.GetNumberOfDataNodes()} frames")


def write_scene(case: Case, path: Path) -> None:
    """The whole scene as .mrb, read back in a fresh scene before it counts as written."""
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        temporary = Path(folder) / path.name  # the name also becomes that of a folder inside
        if not case.scene.WriteToMRB(str(temporary), None):
            raise SystemExit(f"{path} cannot be written; check the folder.")
        count = read_back(temporary)
        temporary.replace(path)
    console.print(f"{path.name}: {count} nodes, read back in a fresh scene")


def read_back(path: Path) -> int:
    """Opens a .mrb in a fresh scene, replays it, and returns the number of its nodes; ends with a line if it fails."""
    with tempfile.TemporaryDirectory() as cache_folder:
        cache, manager = slicer.vtkCacheManager(), slicer.vtkDataIOManager()
        cache.SetRemoteCacheDirectory(cache_folder)
        manager.SetCacheManager(cache)
        scene = slicer.vtkMRMLScene()
        scene.SetCacheManager(cache)
        scene.SetDataIOManager(manager)
        sequences = slicer.vtkSlicerSequencesLogic()
        sequences.SetMRMLScene(scene)
        scene.GlobalWarningDisplayOff()  # MRML calls the turned view's orientation, which it saved itself, unknown
        good = scene.ReadFromMRB(str(path))
        scene.GlobalWarningDisplayOn()
        browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode") if good else None
        if browser is None or browser.GetNumberOfItems() != FRAMES:
            raise SystemExit(f"{path} does not open again; the scene is damaged.")
        probe = browser.GetProxyNode(browser.GetMasterSequenceNode())
        matrices = []
        for item in (0, FRAMES - 1):
            browser.SetSelectedItemNumber(item)
            sequences.UpdateProxyNodesFromSequences(browser)
            matrices.append(nodeToWorld(probe))
        if np.allclose(*matrices):
            raise SystemExit(f"{path} opens, but its sweep does not play.")
        return scene.GetNumberOfNodes()


if __name__ == "__main__":
    main()
