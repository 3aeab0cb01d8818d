"""The acoustic maps of a medium as volumes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..io.atomic import making_folder
from ..io.provenance import header_keys
from ..io.volumes import write_volume
from ..medium import CHANNELS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..medium import AcousticMedium


def write_maps(folder: str | Path, medium: AcousticMedium, made: Mapping[str, object] | None = None) -> Iterator[int]:
    """Writes the four maps, float32, as `<channel>.nrrd`.

    impedance_mrayl (MRayl), attenuation_db_cm_mhz (a in a f^b dB/cm), attenuation_exponent (b), scattering (amplitude
    relative to white matter).

    Args:
        folder: A new one.
        medium: Whose maps.
        made: Their provenance, for the headers.

    Yields:
        How many are done.

    Raises:
        InputError: The folder is there and not empty, or the disk is full.
    """
    maps = medium.maps.detach().float().cpu().numpy()
    with making_folder(Path(folder)) as temporary:
        for number, (channel, values) in enumerate(zip(CHANNELS, maps)):
            write_volume(temporary / f"{channel}.nrrd", values, medium.ijk_to_ras.numpy(), header_keys(made))
            yield number + 1
