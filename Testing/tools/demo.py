"""The headless case: a real MRI in a real MRML scene, a probe on the head, a simulated sweep, files for 3D Slicer.

Then a tracked sweep of the same brain is registered to the MRI (demo_register.py).

Usage: python Testing/tools/demo.py [FOLDER] [--pictures]
    FOLDER      where the files go (default: demo)
    --pictures  also renews the project's own pictures in Resources/
"""

from __future__ import annotations

import shutil
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import demo_register
import headless
import numpy as np
import slicer
import slicer.util
import torch
from diffus.io.atomic import replacing
from DiffUSLib import engine
from DiffUSLib.kinds import MediumKind
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameters import readParameters
from DiffUSLib.scene.transforms import ijkToRas, nodeToWorld, probeToVolume, toVtk
from DiffUSLib.scene.voxels import MediumCache
from rich.console import Console
from rich.progress import track

ROOT = Path(__file__).resolve().parents[2]
# Slicer's own slice views, with their colours.
VIEWS = {"Red": ("Axial", 0xF34A33), "Yellow": ("Sagittal", 0xEDD54C), "Green": ("Coronal", 0x6EB04B)}
CONTACT = (30.0, 5.0, 75.0)  # RAS mm, near the skin over the right frontal lobe
FRAMES = 48
TILT_DEG = 22.0  # the probe rocks about its face, from one side to the other
FRAMES_PER_S = 12.0
BRAIN_MRAYL = (1.50, 1.62)  # of the colour scale: CSF to white matter

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
    draw_panel(case, panel)
    if "--pictures" in sys.argv[1:]:
        renew_pictures(case, panel)
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
    scene = new_scene()
    mri = load_mri(scene)
    parameters = parameter_node(scene)
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


def parameter_node(scene):
    """The module's own parameter node, in which it finds its choices when the scene is opened in Slicer."""
    from DiffUSLib.render.parameter_node import RenderParameterNode

    node = scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode", "DiffUSRender")
    node.SetSingletonTag("DiffUSRender")
    node.SetModuleName("DiffUSRender")
    return RenderParameterNode(node)


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


# --- pictures


def draw_panel(case: Case, path: Path) -> None:
    """MRI with the fan, impedance along the rays, simulated image, and the sweep below, as one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    renderer = engine.buildRenderer(readParameters(case.parameters))
    outline = engine.fanOutline(renderer.probe)
    pixels = slicer.util.arrayFromVolume(case.parameters.outputSlice)[0]
    impedance, extent = fan_impedance(case, renderer)
    mri, mri_extent = mri_in_probe_plane(case)
    plt.style.use("dark_background")
    figure = plt.figure(figsize=(15, 7.4), layout="constrained")
    upper, lower = figure.subfigures(2, 1, height_ratios=(2.6, 1))
    axes = upper.subplots(1, 3, width_ratios=(1, 1.25, 1.25))
    closed = np.vstack([outline, outline[:1]])
    axes[0].imshow(mri, cmap="gray", extent=mri_extent, vmin=0, vmax=255)
    axes[0].plot(*closed.T, color="#40ccff", lw=1.5)
    axes[0].set_title("MRI in the plane of the probe")
    map_ = axes[1].imshow(impedance, cmap="viridis", extent=extent, vmin=BRAIN_MRAYL[0], vmax=BRAIN_MRAYL[1])
    axes[1].set_title("Acoustic impedance along the rays, MRayl")
    upper.colorbar(map_, ax=axes[1], location="bottom", shrink=0.8, aspect=40)
    axes[2].imshow(pixels, cmap="gray", extent=extent, vmin=0, vmax=255)
    axes[2].set_title(f"Simulated ultrasound, {case.milliseconds:.0f} ms a frame on one core")
    for axis in axes:
        axis.set_xlabel("lateral, mm")
    axes[0].set_ylabel("depth, mm")
    chosen = np.linspace(0, FRAMES - 1, 7).round().astype(int)
    for axis, number in zip(lower.subplots(1, len(chosen)), chosen):
        frame = slicer.util.arrayFromVolume(case.slices.GetNthDataNode(int(number)))[0]
        axis.imshow(frame, cmap="gray", vmin=0, vmax=255)
        axis.set_title(f"{np.linspace(-TILT_DEG, TILT_DEG, FRAMES)[number]:+.0f}°", fontsize=10)
        axis.axis("off")
    figure.suptitle("DiffUS: simulated from the MRI, not for clinical decisions")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=100)
    plt.close(figure)


def fan_impedance(case: Case, renderer) -> tuple[np.ndarray, tuple]:
    """Impedance at the samples of the rays, scan-converted, NaN outside of the fan; and the slice's extent in mm."""
    medium = MediumCache().medium(case.mri, MediumKind.MRI)
    pose = torch.from_numpy(probeToVolume(case.parameters.probeTransform, case.mri))[None]
    with torch.inference_mode():
        points = renderer.points_ras(pose, medium.dtype)
        impedance = renderer.scan_convert(medium.sample(points)[0].mean(1))[0].numpy()
    geometry = renderer.probe.slice_geometry()
    left, top = geometry.pixel_to_probe[:2, 3].numpy() - geometry.mm_per_pixel / 2
    width, height = geometry.columns * geometry.mm_per_pixel, geometry.rows * geometry.mm_per_pixel
    return np.where(impedance > 0, impedance, np.nan), (left, left + width, top + height, top)


def mri_in_probe_plane(case: Case) -> tuple[np.ndarray, tuple]:
    """The MRI resampled in the probe's plane, wider than the fan."""
    from scipy.ndimage import map_coordinates

    x, y = np.arange(-80.0, 80.0, 0.5), np.arange(-15.0, 145.0, 0.5)
    plane = np.stack([*np.meshgrid(x, y), np.zeros((len(y), len(x))), np.ones((len(y), len(x)))])
    to_ijk = np.linalg.inv(ijkToRas(case.mri)) @ probeToVolume(case.parameters.probeTransform, case.mri)
    i, j, k = np.tensordot(to_ijk, plane, 1)[:3]
    values = map_coordinates(slicer.util.arrayFromVolume(case.mri).astype(np.float32), [k, j, i], order=1)
    return values, (x[0], x[-1], y[-1], y[0])


def renew_pictures(case: Case, panel: Path) -> None:
    """The pictures in Resources/Screenshots and the extension's icon."""
    from PIL import Image

    screenshots = ROOT / "Resources" / "Screenshots"
    screenshots.mkdir(parents=True, exist_ok=True)
    shutil.copy(panel, screenshots / "render.png")
    shutil.copy(panel.with_name(demo_register.NAMES[4]), screenshots / "register.png")
    pixels = slicer.util.arrayFromVolume(case.parameters.outputSlice)[0]
    renderer = engine.buildRenderer(readParameters(case.parameters))
    icon = Image.fromarray(draw_icon(pixels, renderer.probe)).resize((128, 128), Image.Resampling.LANCZOS)
    icon.save(ROOT / "Resources" / "DiffUS.png", optimize=True)


def draw_icon(pixels: np.ndarray, probe) -> np.ndarray:
    """The fan on nothing, the face of the probe in colour: (size, size, 4) uint8."""
    from PIL import Image, ImageDraw

    geometry = probe.slice_geometry()
    outline = (engine.fanOutline(probe) - geometry.pixel_to_probe[:2, 3].numpy()) / geometry.mm_per_pixel
    size, margin = max(pixels.shape) + 40, 20
    offset = (np.array([size, size]) - pixels.shape[::-1]) // 2
    canvas = np.zeros((size, size, 4), np.uint8)
    inside = Image.new("L", (size, size))
    ImageDraw.Draw(inside).polygon([tuple(point) for point in outline + offset], fill=255)
    rows, columns = pixels.shape
    canvas[offset[1] : offset[1] + rows, offset[0] : offset[0] + columns, :3] = pixels[..., None]
    canvas[..., 3] = np.asarray(inside)
    picture = Image.fromarray(canvas)
    face = [tuple(point) for point in outline[: len(outline) // 2] + offset]
    ImageDraw.Draw(picture).line(face, fill=(64, 204, 255, 255), width=margin, joint="curve")
    return np.asarray(picture)


if __name__ == "__main__":
    main()
