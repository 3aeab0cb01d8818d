"""Registers noise to a CT of 512 x 512 x 400 voxels of 0.5 mm with a small search, and prints the peak memory in MB."""

import sys
from pathlib import Path

import numpy as np
import torch
from diffus.register.registration import Settings, register
from diffus.register.search import SearchSettings
from diffus.sweep.sweep import TrackedSweep

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from support.memory import peak_mb

SETTINGS = Settings(search=SearchSettings(samples=128, around=4, copies=2, starts=3, families=8))
SIZE = 160  # pixels of 1 mm

rng = np.random.default_rng(0)
blocks = rng.integers(-200, 300, (50, 64, 64)).astype(np.int16)
volume = blocks.repeat(8, 0).repeat(8, 1).repeat(8, 2)
poses = np.eye(4)[None].repeat(6, 0)
poses[:, :3, 3] = (128 - SIZE / 2, 128 - SIZE / 2, 100)
poses[:, 2, 3] += np.linspace(-15, 15, 6)
sweep = TrackedSweep.from_arrays(rng.random((6, SIZE, SIZE), np.float32), poses, mask=torch.ones(SIZE, SIZE))
register(volume, np.diag([0.5, 0.5, 0.5, 1.0]), sweep, kind="ct", settings=SETTINGS)
print(peak_mb())
