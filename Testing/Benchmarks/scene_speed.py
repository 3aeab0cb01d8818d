"""Transform event to updated pixels in the scene layer, against the engine alone, in one run."""

from __future__ import annotations

from pathlib import Path

import headless
import numpy as np
from Benchmarks.measure import best_of, report
from headless.fixtures import addParameterNode, addTransform, addVolume, rotation


def run(folder: Path) -> None:
    """Writes scene_speed.csv into `folder`."""
    headless.newScene()
    from DiffUSLib import engine
    from DiffUSLib.kinds import MediumKind
    from DiffUSLib.render.logic import RenderLogic
    from DiffUSLib.render.parameters import readParameters
    from DiffUSLib.scene.transforms import toVtk
    from DiffUSLib.scene.voxels import MediumCache

    generator = np.random.default_rng(0)
    volume = addVolume(generator.normal(40, 30, (160, 160, 160)).astype(np.float32), np.eye(4), "CT")
    probe = addTransform(np.eye(4), name="Probe")
    parameters = addParameterNode(volume, probe, rays=192, samples=400, depthMm=70.0, automaticQuality=False)
    loop = headless.EventLoop()
    logic = RenderLogic(schedule=loop.schedule)
    poses = [rotation(0, 0, angle, (80, 60 + angle, 80)) for angle in np.linspace(-5, 5, 7)]
    probe.SetMatrixTransformToParent(toVtk(poses[0]))
    logic.startLive(parameters)
    loop.run()
    renderer = engine.buildRenderer(readParameters(parameters))
    medium = MediumCache().medium(volume, MediumKind.CT)
    turn = iter(range(10**9))

    def through_the_scene():
        probe.SetMatrixTransformToParent(toVtk(poses[next(turn) % len(poses)]))
        loop.run()

    def engine_alone():
        engine.renderPixels(renderer, medium, poses[next(turn) % len(poses)])

    scene, alone = best_of(through_the_scene, engine_alone, repeats=25)
    logic.stopLive()
    rows = [
        ["engine alone, ms", f"{alone * 1e3:.1f}", ""],
        ["transform event to updated pixels, ms", f"{scene * 1e3:.1f}", ""],
        ["scene / engine", f"{scene / alone:.2f}", "at most 1.3"],
    ]
    report(folder, "scene_speed", "Scene layer, default frame", ["what", "figure", "target"], rows)
