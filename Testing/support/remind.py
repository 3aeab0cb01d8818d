"""ReMIND as The Cancer Imaging Archive ships it, drawn: DICOM series of MRI and 3-D ultrasound, and segmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from .remind2reg import write_case

MR, US = "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.6.1"
US_VOLUME = "1.2.840.10008.5.1.4.1.1.6.2"


def write_series(
    folder: Path, image: sitk.Image, *, patient: str, study: str, series: str, frames: bool = False
) -> None:
    """Writes a volume as a DICOM series, a file for each slice in a mixed order, or one file with all of them."""
    folder.mkdir(parents=True)
    array = sitk.GetArrayFromImage(image).astype(np.uint16)
    directions = np.array(image.GetDirection()).reshape(3, 3)
    orientation = [*directions[:, 0], *directions[:, 1]]
    column_mm, row_mm, _ = image.GetSpacing()
    uid = generate_uid(prefix=None)
    order = np.random.default_rng(0).permutation(len(array))
    for number, k in enumerate([0] if frames else order):
        dataset = _dataset(US_VOLUME if frames else US if series.startswith("US") else MR)
        dataset.PatientID, dataset.StudyDescription, dataset.SeriesDescription = patient, study, series
        dataset.Modality = "US" if series.startswith("US") else "MR"
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uid, "1.2.3"
        dataset.Rows, dataset.Columns = array.shape[1:]
        if frames:
            dataset.NumberOfFrames = len(array)
            shared, measures, plane = Dataset(), Dataset(), Dataset()
            measures.PixelSpacing, plane.ImageOrientationVolume = [row_mm, column_mm], orientation
            shared.PixelMeasuresSequence = Sequence([measures])
            shared.PlaneOrientationVolumeSequence = Sequence([plane])
            dataset.SharedFunctionalGroupsSequence = Sequence([shared])
            dataset.PerFrameFunctionalGroupsSequence = Sequence([_frame(image, n) for n in range(len(array))])
            dataset.PixelData = array.tobytes()
        else:
            dataset.ImagePositionPatient = list(image.TransformIndexToPhysicalPoint((0, 0, int(k))))
            dataset.ImageOrientationPatient, dataset.PixelSpacing = orientation, [row_mm, column_mm]
            dataset.PixelData = array[k].tobytes()
        dataset.save_as(folder / f"1-{number + 1:03d}.dcm", enforce_file_format=True)


def _dataset(kind: str) -> FileDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = kind, generate_uid(prefix=None)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 0
    return dataset


def _frame(image: sitk.Image, number: int) -> Dataset:
    group, position = Dataset(), Dataset()
    position.ImagePositionVolume = list(image.TransformIndexToPhysicalPoint((0, 0, number)))
    group.PlanePositionVolumeSequence = Sequence([position])
    return group


def write_patient(
    root: Path, name: str, scratch: Path, *, size: int = 48, stages: tuple[str, ...] = ("predura",)
) -> None:
    """Writes a patient with T1 after contrast, T2, FLAIR, an intraoperative T2, and ultrasound of these stages.

    The volumes are those of `write_case`; the ultrasound after the first is a multi-frame file.
    """
    scratch.mkdir(exist_ok=True)
    write_case(scratch, 0, size=size, mm=96 / size)
    drawn = [sitk.ReadImage(str(scratch / f"ReMIND2Reg_0000_{number}.nii.gz")) for number in ("0000", "0001", "0002")]
    patient = root / "ReMIND" / name
    scans = (
        ("Preop", "3D_AX_T1_postcontrast", drawn[1]),
        ("Preop", "2D_AX_T1_postcontrast", drawn[1][:, :, ::2]),
        ("Preop", "3D_SAG_T2_SPACE", drawn[2]),
        ("Preop", "2D_AX_T2_FLAIR", drawn[2]),
        ("Intraop", "2D_AX_T2_BLADE", drawn[2]),
        *(("Intraop", f"US{stage}", drawn[0]) for stage in stages),
    )
    for number, (study, series, image) in enumerate(scans):
        folder = patient / f"12-25-1982-NA-{study}-65502" / f"{number + 1}.000000-{series}-64615"
        several = series.startswith("US") and series != f"US{stages[0]}"
        write_series(folder, image, patient=name, study=study, series=series, frames=several)
    masks = root / "ReMIND_NRRD_Seg_Sep_2023" / name
    masks.mkdir(parents=True)
    tumour = sitk.Cast(drawn[1] > 690, sitk.sitkUInt8)
    for phase, structure in (("preop", "tumor"), ("preop", "ventricles"), ("intraop", "tumor_residual")):
        sitk.WriteImage(tumour, str(masks / f"{name}-{phase}-SEG-{structure}-MR-3D_AX_T1_postcontrast.nrrd"))
