"""A CT on file whose answer is known: tissue, and a plate of bone at one depth below a probe."""

import numpy as np
import SimpleITK as sitk

# Tissue fills the volume; a plate of bone begins PLATE_MM below the probe's face along its depth axis.
PLATE_MM = 30.0
SPACING = 1.5
SHAPE = (48, 44, 52)
# Looks along -z of the world, x to the left: the face is above the volume's middle.
POSE = np.array(
    [
        [-1.0, 0.0, 0.0, 38.0],
        [0.0, 0.0, -1.0, 33.0],
        [0.0, -1.0, 0.0, 70.0],
        [0.0, 0.0, 0.0, 1.0],
    ]
)


def write_plate_ct(path: str) -> None:
    """Writes the CT, with a little noise."""
    heights = POSE[2, 3] - SPACING * np.arange(SHAPE[0])
    hu = np.where(heights[:, None, None] > PLATE_MM, 1200.0, 40.0) + np.zeros(SHAPE)
    hu = hu + np.random.default_rng(0).normal(0, 2, SHAPE)
    image = sitk.GetImageFromArray(hu.astype(np.float32))
    image.SetSpacing((SPACING,) * 3)
    image.SetDirection((-1, 0, 0, 0, -1, 0, 0, 0, 1))  # i and j are RAS axes
    sitk.WriteImage(image, path)
