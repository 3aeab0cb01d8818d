"""Who may import whom: the rules that keep the extension one-way, light, and loadable in Slicer."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = ("DiffUSRender", "DiffUSRegister")
HOME = ROOT / "DiffUSRender"  # of the engine and of the scene layer
PANELS = ("widget.py", "panel.py", "a_mode_panel.py", "export_panel.py", "match_panel.py")
# The engine's rooms from the bottom to the top; a room imports from those before it.
ROOMS = (
    "errors",
    "settings",
    "data",
    "geometry",
    "io",
    "medium",
    "probe",
    "sweep",
    "metrics",
    "render",
    "fit",
    "export",
)
ROOMS += ("register", "learn", "studies", "cli", "__main__")
APART = {("fit", "export"), ("export", "fit"), ("register", "fit"), ("register", "export"), ("learn", "register")}
# What Slicer bundles and its modules may use; torch comes through Slicer's PyTorch extension.
BUNDLED = {"numpy", "scipy", "SimpleITK", "pydicom", "PIL", "torch"}
SLICER = {"slicer", "slicer_core", "vtk", "vtkmodules", "vtkSegmentationCorePython"}
GUI = {"qt", "ctk", "PythonQt", "PySide6"}
OWN = {*MODULES, "diffus", "DiffUSLib"}
# Optional packages that the command line and the studies' commands stand on.
COMMAND_LINE = {"click", "rich", "matplotlib"}
# Files of the engine that load where torch is missing.
TORCH_FREE = ("diffus.errors", "diffus.settings", "diffus.data", "diffus.render.settings")
# Optional packages of single files, imported where they are used.
OPTIONAL = {"movie.py": {"imageio_ffmpeg"}}
# What torch needs itself, where it is installed, and what vtk and torch's installers bring.
TORCH_NEEDS = {"typing_extensions", "sympy", "mpmath", "filelock", "fsspec", "jinja2", "markupsafe", "networkx"}
TORCH_NEEDS |= {"torchgen", "functorch", "packaging", "setuptools"}


def python_files(*folders):
    return [f for folder in folders for f in sorted((ROOT / folder).rglob("*.py")) if "__pycache__" not in f.parts]


ENGINE = python_files("DiffUSRender/diffus")
SCENE = python_files("DiffUSRender/DiffUSLib")


def room(file):
    """The room of an engine file: the folder below `diffus`, or the file itself."""
    return file.relative_to(HOME / "diffus").with_suffix("").parts[0]


def is_command_line(file):
    return room(file) in ("cli", "__main__")


def module_name(file):
    """Dotted name and package of a file in one of the two modules' folders."""
    parts = file.relative_to(ROOT).with_suffix("").parts[1:]
    package = ".".join(parts[:-1])
    return (package if parts[-1] == "__init__" else ".".join(parts)), package


class Imports(ast.NodeVisitor):
    """Collects (absolute dotted name, whether at file scope), without what stands under `if TYPE_CHECKING`."""

    def __init__(self, package, types=False):
        self.types = types
        self.package = package.split(".") if package else []
        self.depth = 0
        self.found = []

    def visit_If(self, node):
        if not self.types and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node = ast.Module(body=node.orelse, type_ignores=[])
        self.generic_visit(node)

    def visit_FunctionDef(self, node):
        self.depth += 1
        self.generic_visit(node)
        self.depth -= 1

    visit_AsyncFunctionDef = visit_Lambda = visit_FunctionDef

    def visit_Import(self, node):
        self.found += [(alias.name, self.depth == 0) for alias in node.names]

    def visit_ImportFrom(self, node):
        base = self.package[: len(self.package) - node.level + 1] if node.level else []
        name = ".".join([*base, *([node.module] if node.module else [])])
        self.found += [(f"{name}.{alias.name}", self.depth == 0) for alias in node.names]


def imports(file, *, source=None, types=False):
    visitor = Imports(module_name(file)[1], types)
    visitor.visit(ast.parse(source or file.read_text(encoding="utf-8")))
    return visitor.found


def foreign(file, allowed):
    """The imports of a file that are neither the standard library's nor allowed."""
    roots = {name.split(".")[0] for name, _ in imports(file)}
    return sorted(roots - set(sys.stdlib_module_names) - allowed)


@pytest.mark.parametrize("file", ENGINE, ids=lambda file: module_name(file)[0])
def test_the_engine_imports_only_what_slicer_bundles(file):
    command_line = COMMAND_LINE if is_command_line(file) else set()
    optional = OPTIONAL.get(file.name, set())
    assert not foreign(file, BUNDLED | {"diffus"} | command_line | optional)
    assert not optional & {name.split(".")[0] for name, outer in imports(file) if outer}


@pytest.mark.parametrize("file", ENGINE, ids=lambda file: module_name(file)[0])
def test_imports_of_the_engine_run_one_way(file):
    """Types are looked up one way too: what stands under TYPE_CHECKING is read like the rest."""
    here = room(file)
    if here == "__init__":  # the engine's front door
        return
    for name, _ in imports(file, types=True):
        parts = name.split(".")
        if parts[0] == "diffus" and parts[1] in ROOMS:
            there = parts[1]
            assert ROOMS.index(there) <= ROOMS.index(here), name
            assert (here, there) not in APART, name


def test_scene_layers_never_import_a_gui():
    """But for the files of the panels, which nothing else in the scene layer imports."""
    panels = {module_name(file)[0] for file in SCENE if file.name in PANELS}
    for file in SCENE:
        if file.name in PANELS:
            assert not foreign(file, SLICER | GUI | {"DiffUSLib", "diffus"}), file
        else:
            assert not foreign(file, BUNDLED | SLICER | {"DiffUSLib", "diffus"}), file
            assert not [name for name, _ in imports(file) if any(name.startswith(panel) for panel in panels)], file


def test_what_both_modules_share_knows_neither():
    for file in python_files("DiffUSRender/DiffUSLib/scene", "DiffUSRender/DiffUSLib/render"):
        names = {name for name, _ in imports(file)}
        assert not [name for name in names if name.startswith("DiffUSLib.register")], file
        if file.parent.name == "scene":
            assert not [name for name in names if name.startswith("DiffUSLib.render")], file


@pytest.mark.parametrize("module", MODULES)
def test_module_files_load_nothing_heavy(module):
    """Slicer imports every Module.py at start: nothing there but what Slicer itself has imported by then."""
    for file in (ROOT / module).glob("*.py"):
        at_file_scope = {name.split(".")[0] for name, outer in imports(file) if outer}
        allowed = set(sys.stdlib_module_names) | SLICER | GUI | {"numpy", "DiffUSLib"}
        assert not at_file_scope - allowed, file
        assert not foreign(file, BUNDLED | SLICER | GUI | OWN), file


def test_the_scene_layer_loads_of_the_engine_only_what_needs_no_torch():
    """Slicer imports most of it at start; the rest of the engine is imported inside the functions that use it."""
    for file in SCENE:
        outer = [name for name, at_file_scope in imports(file) if at_file_scope and name.split(".")[0] == "diffus"]
        assert not [name for name in outer if name.rpartition(".")[0] not in TORCH_FREE], file
    run_blocked("".join(f"import {name}\n" for name in TORCH_FREE), without={"torch"})


def slicer_names(source):
    """The names taken directly from the package slicer: `slicer.X` and `from slicer import X`."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "slicer":
            names.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == "slicer" and not node.level:
            names |= {alias.name for alias in node.names}
    return names


IN_SLICER = {"mrmlScene", "app", "util", "modules", "packaging", "i18n", "ScriptedLoadableModule"}
IN_SLICER |= {"parameterNodeWrapper", "testing"}


def not_in_slicer(source):
    return {name for name in slicer_names(source) - IN_SLICER if not name.startswith(("vtk", "qMRML", "qSlicer"))}


def test_slicer_util_is_always_named():
    """The PyPI wheel has slicer.util's functions at its top too; Slicer has not, so they would fail only there."""
    for file in sorted(ROOT.glob("DiffUS*/**/*.py")) + sorted(ROOT.glob("Testing/**/*.py")):
        if file != Path(__file__) and "headless" not in file.parts:  # the stand-ins add to the package slicer
            assert not not_in_slicer(file.read_text(encoding="utf-8")), file


def test_these_rules_catch_what_they_forbid():
    file = HOME / "diffus" / "medium" / "x.py"
    text = "import os\nif TYPE_CHECKING:\n    import jaxtyping\ndef f():\n    import click\nfrom ..io import a\n"
    assert imports(file, source=text) == [("os", True), ("click", False), ("diffus.io.a", True)]
    assert not_in_slicer("slicer.getNode('a'); slicer.util.getNode('a'); slicer.vtkMRMLScene()") == {"getNode"}
    assert not_in_slicer("from slicer import arrayFromVolume, util") == {"arrayFromVolume"}


BLOCK = """
import importlib.abc, sys

class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        root = name.partition(".")[0]
        if root not in ALLOWED and root not in sys.stdlib_module_names and not root.startswith("_"):
            raise ModuleNotFoundError(f"No module named {name!r} in Slicer", name=root)

sys.meta_path.insert(0, Block())
"""


def run_blocked(code, *, without=()):
    """Runs `code` in a new Python where only what Slicer has can be imported."""
    allowed = (BUNDLED | SLICER | OWN | TORCH_NEEDS | {"headless"}) - set(without)
    paths = [str(ROOT / module) for module in MODULES] + [str(ROOT / "Testing")]
    program = f"ALLOWED = {allowed!r}\n{BLOCK}\nsys.path[:0] = {paths!r}\n{code}"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_block_blocks():
    code = "try:\n    import click\nexcept ModuleNotFoundError as error:\n    print(error)\n"
    assert "No module named 'click'" in run_blocked(code)


@pytest.mark.parametrize("module", [name for name in MODULES if (ROOT / name / f"{name}.py").exists()])
def test_modules_load_without_torch(module):
    """Slicer starts, and shows the module, where PyTorch is not installed."""
    run_blocked(f"import headless; headless.prepare(); import {module}\n", without={"torch"})


def test_the_scene_layer_needs_nothing_that_slicer_lacks():
    out = run_blocked(
        """
import headless
scene = headless.newScene()
import numpy, slicer, slicer.util
from DiffUSLib.render.logic import RenderLogic
from DiffUSLib.render.parameter_node import RenderParameterNode

volume = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "CT")
slicer.util.updateVolumeFromArray(volume, numpy.random.default_rng(0).normal(40, 20, (60, 60, 60)).astype("float32"))
node = RenderParameterNode(scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
node.inputVolume = volume
logic = RenderLogic()
logic.createProbe(node)
logic.placeOnSkin(node, numpy.array([30.0, 30.0, 58.0]))
print("rendered", slicer.util.arrayFromVolume(logic.render(node)).max())
"""
    )
    assert int(out.split()[-1]) > 50


def test_rendering_needs_nothing_that_slicer_lacks():
    out = run_blocked(
        """
import numpy, torch
torch.set_num_threads(1)
from diffus.medium.medium import AcousticMedium
from diffus.probe.presets import preset_names, probe_preset
from diffus.render.renderer import UltrasoundRenderer
import diffus.io.transforms, diffus.io.volumes, diffus.sweep.sweep

hu = numpy.random.default_rng(0).normal(40, 20, (20, 24, 28))
geometry = numpy.diag([3.0, 3.0, 3.0, 1.0])
medium = AcousticMedium.from_ct(hu, geometry)
pose = torch.eye(4, dtype=torch.float64)
pose[:3, 3] = torch.tensor([40.0, 0.0, 30.0])
for name in preset_names():
    image = UltrasoundRenderer(probe_preset(name))(medium, pose)
    assert torch.isfinite(image).all() and image.max() > 0, name
print("rendered", len(preset_names()))
"""
    )
    assert "rendered" in out


def test_exporting_needs_nothing_that_slicer_lacks(tmp_path):
    out = run_blocked(
        f"""
import pathlib
import numpy, torch
from diffus.errors import InputError
from diffus.export import SimulatedFrames, export
from diffus.probe import probe_preset
from diffus.render.settings import RenderSettings

probe = probe_preset("linear")
geometry = probe.slice_geometry()
pixels = numpy.full((3, geometry.rows, geometry.columns), 99, numpy.uint8)
poses = numpy.tile(numpy.eye(4), (3, 1, 1))
frames = SimulatedFrames(pixels, poses, numpy.arange(3.0), probe, RenderSettings())
folder = pathlib.Path({str(tmp_path)!r})
for ending in (".seq.nrrd", ".igs.mha", ".png", ".gif", ".dcm"):
    print(ending, list(export(frames, folder / ("sweep" + ending)))[-1])
try:
    list(export(frames, folder / "sweep.mp4"))
except InputError as error:
    print(error)
"""
    )
    assert out.count(" 3\n") == 5
    assert "install it" in out


HEAD = """
import numpy
k, j, i = (numpy.indices((48, 48, 48)) - 23.5) * 3.2
r = numpy.sqrt(i**2 + j**2 + k**2)
levels = ((12, 0.1), (40, 1.0), (55, 0.7), (60, 0.1), (66, 1.5), (200, 0.0))
head = 100 * numpy.select([r < radius for radius, _level in levels], [level for _radius, level in levels])
head += 8 * numpy.exp(-((i - 30) ** 2 + j**2 + (k - 20) ** 2) / 200) * numpy.sin(i / 4)
geometry = numpy.diag([3.2, 3.2, 3.2, 1.0])
geometry[:3, 3] = -23.5 * 3.2
"""


def test_registering_in_the_scene_needs_nothing_that_slicer_lacks():
    """The sample case and a shortened registration of it, from nodes to the verdict."""
    out = run_blocked(
        HEAD
        + """
import dataclasses, torch
torch.set_num_threads(1)
import headless
headless.newScene()
import slicer
from diffus.register.registration import RigidRegistration, Settings
from DiffUSLib.register import sample
from DiffUSLib.register.logic import RegisterLogic
from DiffUSLib.register.parameter_node import RegisterParameterNode
from headless.fixtures import addVolume

search = dataclasses.replace(Settings().search, samples=256, around=8, copies=2, starts=4)
settings = dataclasses.replace(Settings(), search=search)
nodes = sample.loadSampleCase(lambda: addVolume(head.astype("float32"), geometry, "T1"))
node = RegisterParameterNode(slicer.mrmlScene.GetSingletonNode("DiffUSRegister", "vtkMRMLScriptedModuleNode"))

def build(problem, parameters):
    sweep = problem.sweep.subset(range(0, len(problem.sweep), 8))
    return RigidRegistration(problem.voxels, problem.ijkToRas, sweep, initial=problem.initial, settings=settings)

logic = RegisterLogic(buildRegistration=build)
logic.runToEnd(node)
print("registered", node.report)
"""
    )
    assert "registered {" in out
    assert '"mri_to_reference"' in out


def test_every_engine_file_but_the_commands_loads_with_what_slicer_has():
    """Optional packages are imported where they are used, never when a file is loaded."""
    files = [f for f in ENGINE if not is_command_line(f)]
    names = [module_name(file)[0] for file in files]
    assert len(names) > 40
    run_blocked(f"import importlib\nfor name in {names!r}:\n    importlib.import_module(name)\n")
