"""The pictures of simulated ultrasound from CT in Resources/Screenshots, one for the abdomen and one for the heart.

Usage: python Testing/tools/pictures.py [FOLDER]
    FOLDER      where the pictures go (default: Resources/Screenshots)

They need the shared test data (see support/ct_windows.py), whose CT are of the TotalSegmentator project (Apache-2.0).
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "Testing"), str(ROOT / "DiffUSRender")]

import numpy as np
import torch
from diffus.cli.study.figures import pyplot, save_small
from diffus.io.atomic import replacing
from support.ct_windows import Patient, abdomen, heart

DATA = ROOT.parent / "shared" / "data"
HU_WINDOW = {"abdomen": (-160.0, 260.0), "heart": (-200.0, 600.0)}
NOTES = {
    "abdomen": "Liver from the right side between ribs, and from below them in front. The CT ends above: black there.",
    "heart": "Blood with contrast agent, and the muscle around it, are laid over the CT as labels.",
}


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "Resources" / "Screenshots"
    if not DATA.is_dir():
        raise SystemExit(f"The shared test data is not present at {DATA}; the pictures are made of its CT.")
    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for name, patient in (("abdomen", abdomen(DATA)), ("heart", heart(DATA))):
        path = folder / f"ct_{name}.png"
        with replacing(path) as temporary:
            draw(patient, name, temporary)
        print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def draw(patient: Patient, name: str, path: Path) -> None:
    """The CT in the probe's plane with the fan, and the simulated image, for each window."""
    low, high = HU_WINDOW[name]
    figure, axes = pyplot().subplots(2, 2, figsize=(10.5, 8.2), layout="constrained")
    for line, (window, view) in zip(axes, patient.views().items()):
        outline = view.probe.outline().numpy()
        line[0].imshow(view.hu, extent=view.extent, cmap="gray", vmin=low, vmax=high)
        line[0].plot(*np.vstack([outline, outline[:1]]).T, color="#40ccff", lw=1.3)
        line[1].imshow(view.image, extent=view.extent, cmap="gray", vmin=0, vmax=1)
        line[0].set_title(f"CT, {window} window", fontsize=10)
        line[1].set_title(f"Simulated ultrasound, {view.probe.frequency_mhz:g} MHz", fontsize=10)
        line[0].set_ylabel("depth, mm")
    for axis in axes[-1]:
        axis.set_xlabel("lateral, mm")
    figure.suptitle(f"{NOTES[name]}\nCT: TotalSegmentator, Apache-2.0. Not for clinical decisions.", fontsize=9)
    save_small(figure, path, dpi=80)


if __name__ == "__main__":
    main()
