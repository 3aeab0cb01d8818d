"""Simulated slices as DICOM ultrasound: single frame and multi-frame, with the calibration of their pixels.

DICOM PS3.3 A.6 (US Image), A.7 (US Multi-frame Image), C.8.5.5 (US Region Calibration), C.8.5.6 (US Image). These hold
no pose per frame: that goes out in `.seq.nrrd` or `.igs.mha`.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from .. import __version__
from ..errors import InputError, _
from ..io.atomic import replacing
from ..io.provenance import SIMULATED, provenance_text, without_names
from ..probe import probe_to_dict
from .annotation import Canvas, make_canvas

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pydicom import Dataset

    from .frames import SimulatedFrames

US_IMAGE = "1.2.840.10008.5.1.4.1.1.6.1"
US_MULTIFRAME_IMAGE = "1.2.840.10008.5.1.4.1.1.3.1"
SERIES_DESCRIPTION = "SIMULATED US (DiffUS)"
SERIES_NUMBER = 9001  # far from those of the scanner
TRANSDUCER = {"convex": "CURVED LINEAR", "linear": "LINEAR", "phased": "SECTOR_PHASED"}
MAX_COMMENTS = 10_240  # characters of an LT
MAX_TEXT = 1024  # of the value representation ST
# What the source says of the person and of the visit; copied only if that is wished.
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
VISIT = ("StudyDate", "StudyTime", "StudyID", "AccessionNumber", "ReferringPhysicianName")
OPTIONAL = ("IssuerOfPatientID", "StudyDescription")


@dataclass(frozen=True)
class DicomOptions:
    """source: a dataset of the study that the volume belongs to, or None.

    include_patient: whether the file joins that study with its name, ID and dates; else it is anonymous, in a new study
    whose UID leads back to nobody (DICOM PS3.15 table E.1-1: the Study Instance UID is to be replaced).
    """

    source: Dataset | None = None
    include_patient: bool = False


def read_source(path: str | Path) -> Dataset:
    """The header of a DICOM file whose study a simulation may join; InputError if it is not one."""
    from pydicom import dcmread
    from pydicom.errors import InvalidDicomError

    try:
        source = dcmread(path, stop_before_pixels=True)
    except (OSError, InvalidDicomError) as error:
        raise InputError(_("{path} cannot be read as DICOM; give a file of the source's study."), path=path) from error
    if not source.get("StudyInstanceUID"):
        raise InputError(_("{path} names no study; give a DICOM image of the source's study."), path=path)
    return source


def write_dicom(path: Path, frames: SimulatedFrames, options: DicomOptions) -> Iterator[int]:
    """One frame as a US image, several as a US multi-frame image."""
    canvas = make_canvas(frames.inside)
    drawn = np.empty((len(frames), *canvas.stamp.shape), np.uint8)
    for number, pixels in enumerate(frames.pixels):
        drawn[number] = canvas.draw(pixels)
        yield number + 1
    dataset = ultrasound_dataset(frames, drawn, canvas, options)
    with replacing(path) as temporary:
        _save(dataset, temporary)


def _save(dataset: Dataset, path: Path) -> None:
    """Writes a complete DICOM file; 3D Slicer up to 5.10 has pydicom 2, whose argument has another name."""
    from pydicom import __version_info__

    if int(__version_info__[0]) >= 3:
        dataset.save_as(path, enforce_file_format=True)
    else:
        dataset.save_as(path, write_like_original=False)


def ultrasound_dataset(
    frames: SimulatedFrames, drawn: np.ndarray, canvas: Canvas, options: DicomOptions | None = None
) -> Dataset:
    """Makes the DICOM object.

    Args:
        frames: What the pixels are of.
        drawn: (K, rows, columns) uint8, the frames on the canvas.
        canvas: Where the slice lies on the picture.
        options: Whose study it joins.

    Returns:
        A complete dataset; its series and instance are new, its study too unless the patient is included.
    """
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    options = options or DicomOptions()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = US_IMAGE if len(drawn) == 1 else US_MULTIFRAME_IMAGE
    meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128), is_implicit_VR=False)
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SeriesInstanceUID = generate_uid(prefix=None)
    dataset.StudyInstanceUID = generate_uid(prefix=None)
    _describe_patient(dataset, options)
    _describe_series(dataset)
    _describe_image(dataset, frames, drawn, options.include_patient)
    _calibrate(dataset, frames, canvas)
    return dataset


def derivation(frames: SimulatedFrames) -> str:
    """Version, probe and settings in one line of at most 1024 characters."""
    probe = probe_to_dict(frames.probe)
    settings = {field.name: getattr(frames.settings, field.name) for field in fields(frames.settings)}
    parts = [", ".join(f"{name} {_plain(value)}" for name, value in part.items()) for part in (probe, settings)]
    text = f"Simulated by DiffUS {__version__}, not acquired. Probe: {parts[0]}. Settings: {parts[1]}."
    return text.replace("\\", "/")[:MAX_TEXT]


def _plain(value: object) -> str:
    number = value.item() if hasattr(value, "item") else value
    return f"{number:g}" if isinstance(number, float) else str(number)


def _describe_patient(dataset: Dataset, options: DicomOptions) -> None:
    for name in (*PATIENT, *VISIT):
        setattr(dataset, name, "")
    if options.include_patient and options.source is not None:
        dataset.StudyInstanceUID = options.source.StudyInstanceUID
        for name in (*PATIENT, *VISIT, *OPTIONAL):
            if name in options.source:
                dataset[name] = options.source[name]
    else:
        dataset.PatientName = "Simulated^Anonymous"
        dataset.PatientIdentityRemoved = "YES"
        dataset.DeidentificationMethod = "The identity of the source was not copied"


def _describe_series(dataset: Dataset) -> None:
    now = datetime.now()
    day, clock = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    dataset.Modality, dataset.Laterality = "US", ""
    dataset.SeriesDescription = SERIES_DESCRIPTION
    dataset.SeriesNumber = SERIES_NUMBER
    dataset.SeriesDate = dataset.ContentDate = dataset.InstanceCreationDate = day
    dataset.SeriesTime = dataset.ContentTime = dataset.InstanceCreationTime = clock
    dataset.Manufacturer, dataset.ManufacturerModelName = "DiffUS", "DiffUS Render"
    dataset.SoftwareVersions = __version__
    dataset.InstanceNumber = 1


def _comments(frames: SimulatedFrames, named: bool) -> str:
    """That it is simulated, and from what; without the names of files, which may be the patient's, unless `named`."""
    made = frames.provenance
    if made is None:
        return SIMULATED
    return f"{SIMULATED}. {provenance_text(made if named else without_names(made))}"[:MAX_COMMENTS]


def _describe_image(dataset: Dataset, frames: SimulatedFrames, drawn: np.ndarray, named: bool) -> None:
    dataset.ImageType = ["DERIVED", "SECONDARY"]
    dataset.DerivationDescription = derivation(frames)
    dataset.ImageComments = _comments(frames, named)
    dataset.BurnedInAnnotation = "YES"
    dataset.LossyImageCompression = "00"
    dataset.PatientOrientation = ""
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = drawn.shape[1:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.TransducerType = TRANSDUCER[frames.probe.type]
    dataset.DepthOfScanField = round(frames.probe.depth_mm)
    data = drawn.tobytes()
    dataset.PixelData = data + bytes(len(data) % 2)
    dataset["PixelData"].VR = "OB"
    if len(drawn) == 1:
        return
    dataset.NumberOfFrames = len(drawn)
    steps = 1000 * frames.intervals_s[:-1]
    if np.ptp(steps) < 0.01 * steps.mean():
        dataset.FrameTime = f"{steps.mean():.4f}"
        dataset.FrameIncrementPointer = 0x00181063
    else:
        dataset.FrameTimeVector = ["0", *(f"{step:.4f}" for step in steps)]
        dataset.FrameIncrementPointer = 0x00181065
    dataset.CineRate = max(1, round(frames.frames_per_second))


def _calibrate(dataset: Dataset, frames: SimulatedFrames, canvas: Canvas) -> None:
    """Describes the region of the slice on the canvas, the size of its pixels, and where the probe's face is in it."""
    from pydicom import Dataset

    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0  # 2-D, tissue
    region.RegionLocationMinX0, region.RegionLocationMinY0 = 0, canvas.top
    region.RegionLocationMaxX1 = canvas.slice_columns - 1
    region.RegionLocationMaxY1 = canvas.top + canvas.slice_rows - 1
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3  # cm
    to_probe = frames.pixel_to_probe
    region.PhysicalDeltaX, region.PhysicalDeltaY = to_probe[0, 0] / 10, to_probe[1, 1] / 10
    # The pixel nearest to the middle of the face, relative to the region's corner, and where it lies.
    column, row = (round(float(-to_probe[axis, 3] / to_probe[axis, axis])) for axis in (0, 1))
    region.ReferencePixelX0, region.ReferencePixelY0 = column, row
    region.ReferencePixelPhysicalValueX = float(to_probe[0, 0] * column + to_probe[0, 3]) / 10
    region.ReferencePixelPhysicalValueY = float(to_probe[1, 1] * row + to_probe[1, 3]) / 10
    region.TransducerFrequency = round(1000 * float(frames.probe.frequency_mhz))  # kHz
    dataset.SequenceOfUltrasoundRegions = [region]
