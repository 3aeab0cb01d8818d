"""Simulated DICOM ultrasound: what it says of itself, where its pixels are, whose it is, and what a validator says."""

import shutil
import subprocess

import numpy as np
import pytest
import SimpleITK as sitk
from diffus import __version__
from diffus.errors import InputError
from diffus.export import DicomOptions, SimulatedFrames, export
from diffus.export.annotation import make_canvas
from diffus.export.ultrasound_dicom import derivation, read_source
from diffus.probe import ConvexProbe, LinearProbe, PhasedProbe, preset_names, probe_preset
from diffus.render.settings import RenderSettings, paper_settings

pydicom = pytest.importorskip("pydicom", reason="pydicom is not installed: DICOM is not tested")

COMMON = {"frequency_mhz": 5.0, "depth_mm": 60.0, "focus_mm": 30.0, "rays": 48, "samples": 100}
PROBES = {
    "CURVED LINEAR": ConvexProbe(radius_mm=20.0, fov_deg=60.0, mm_per_pixel=0.4, **COMMON),
    "LINEAR": LinearProbe(width_mm=38.0, mm_per_pixel=0.4, **COMMON),
    "SECTOR_PHASED": PhasedProbe(fov_deg=80.0, mm_per_pixel=0.37, **COMMON),
}


def made(probe=PROBES["CURVED LINEAR"], count=4, times=None, settings=None):
    """Frames that are black but for one bright pixel each, in the fan."""
    geometry = probe.slice_geometry()
    pixels = np.zeros((count, geometry.rows, geometry.columns), np.uint8)
    pixels[np.arange(count), geometry.rows // 2 + np.arange(count), geometry.columns // 2 + 3] = 255
    times = 0.05 * np.arange(count) if times is None else np.asarray(times)
    poses = np.tile(np.eye(4), (count, 1, 1))
    return SimulatedFrames(pixels, poses, times, probe, settings or RenderSettings())


def written(path, frames, *options):
    list(export(frames, path, *options))
    return pydicom.dcmread(path)


@pytest.fixture
def source(tmp_path):
    """A DICOM file of a patient's MRI."""
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = "1.2.840.10008.5.1.4.1.1.4", "1.2.3.4.5"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientName, dataset.PatientID = "Müller^Jürgen", "PID-77"
    dataset.PatientBirthDate, dataset.PatientSex = "19610203", "M"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240506", "101112", "S9"
    dataset.AccessionNumber, dataset.ReferringPhysicianName = "ACC-5", "Who^Doctor"
    dataset.StudyDescription, dataset.Modality = "Head of Mueller", "MR"
    dataset.InstitutionName, dataset.OtherPatientIDs = "St. Elsewhere", "OTHER-1"
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "mri.dcm", dataset, enforce_file_format=True)
    return read_source(tmp_path / "mri.dcm")


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("count", [1, 4])
def test_pixels_and_calibration_agree(tmp_path, name, count):
    """A bright pixel's place in mm, by the file's own calibration, is its place in the probe."""
    frames = made(PROBES[name], count)
    dataset = written(tmp_path / "us.dcm", frames)
    (region,) = dataset.SequenceOfUltrasoundRegions
    pixels = dataset.pixel_array.reshape(count, dataset.Rows, dataset.Columns)
    canvas = make_canvas(frames.inside)
    assert (region.RegionLocationMinY0 > 0) == (name == "LINEAR")  # its fan fills the image: a strip is added
    assert (region.PhysicalUnitsXDirection, region.PhysicalUnitsYDirection) == (3, 3)
    size = np.array([region.PhysicalDeltaX, region.PhysicalDeltaY])
    np.testing.assert_allclose(10 * size, frames.probe.mm_per_pixel)
    corner = np.array([region.RegionLocationMinX0, region.RegionLocationMinY0])
    last = np.array([region.RegionLocationMaxX1, region.RegionLocationMaxY1])
    np.testing.assert_array_equal(last - corner + 1, frames.pixels.shape[:0:-1])
    for n in range(count):
        ((row, column),) = np.argwhere(pixels[n] * canvas.fan)
        offset = np.array([column, row]) - corner - [region.ReferencePixelX0, region.ReferencePixelY0]
        value = [region.ReferencePixelPhysicalValueX, region.ReferencePixelPhysicalValueY]
        ((i, j),) = np.argwhere(frames.pixels[n])[:, ::-1]
        np.testing.assert_allclose(10 * (offset * size + value), (frames.pixel_to_probe @ (i, j, 0, 1))[:2], atol=1e-9)
        assert (pixels[n][~canvas.fan] > 128).sum() > 60  # the word
    assert region.TransducerFrequency == 5000
    assert dataset.TransducerType == name


def test_it_says_what_it_is(tmp_path):
    one, many = written(tmp_path / "one.dcm", made(count=1)), written(tmp_path / "many.dcm", made(count=4))
    assert one.SOPClassUID == one.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.1.1.6.1"
    assert many.SOPClassUID == "1.2.840.10008.5.1.4.1.1.3.1"
    for dataset in (one, many):
        assert list(dataset.ImageType) == ["DERIVED", "SECONDARY"]
        assert dataset.Modality == "US"
        assert dataset.SeriesDescription == "SIMULATED US (DiffUS)"
        assert dataset.BurnedInAnnotation == "YES"
        assert dataset.SOPInstanceUID == dataset.file_meta.MediaStorageSOPInstanceUID
        assert __version__ in dataset.DerivationDescription
        assert "frequency_mhz 5" in dataset.DerivationDescription
        assert "echo transmission" in dataset.DerivationDescription
        assert "not for clinical decisions" in dataset.ImageComments
    assert "NumberOfFrames" not in one
    assert many.NumberOfFrames == 4
    assert many.FrameIncrementPointer == 0x00181063
    assert float(many.FrameTime) == pytest.approx(50.0)
    assert one.StudyInstanceUID != many.StudyInstanceUID


def test_uneven_times_are_a_vector(tmp_path):
    dataset = written(tmp_path / "us.dcm", made(count=4, times=[0.0, 0.05, 0.2, 0.3]))
    assert dataset.FrameIncrementPointer == 0x00181065
    np.testing.assert_allclose([float(time) for time in dataset.FrameTimeVector], [0, 50, 150, 100])


def test_the_description_of_any_settings_fits(tmp_path):
    for settings in (RenderSettings(), paper_settings()):
        for name in preset_names():
            probe = probe_preset(name)
            geometry = probe.slice_geometry()
            pixels = np.zeros((1, geometry.rows, geometry.columns), np.uint8)
            text = derivation(SimulatedFrames(pixels, np.eye(4)[None], np.zeros(1), probe, settings))
            assert text.endswith(".")  # nothing was cut off
            assert len(text) < 1024


def test_without_the_patient_nothing_leads_back_to_the_study(tmp_path, source):
    """The file said PatientIdentityRemoved and kept the source's StudyInstanceUID."""
    first = written(tmp_path / "a.dcm", made(), DicomOptions(source))
    second = written(tmp_path / "b.dcm", made(), DicomOptions(source))
    for dataset in (first, second):
        assert dataset.StudyInstanceUID != source.StudyInstanceUID
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert dataset.PatientIdentityRemoved == "YES"
    assert first.StudyInstanceUID != second.StudyInstanceUID
    assert first.SeriesInstanceUID != second.SeriesInstanceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID
    text = (tmp_path / "a.dcm").read_bytes()
    secrets = [b"ller", b"PID-77", b"19610203", b"20240506", b"ACC-5", b"Who", b"Head of", b"Elsewhere", b"OTHER"]
    secrets += [b"1.2.3\0", b"1.2.3 ", b"1.2.3.4"]
    assert [secret for secret in secrets if secret in text] == []


def test_it_carries_the_patient_when_that_is_wished(tmp_path, source):
    dataset = written(tmp_path / "us.dcm", made(), DicomOptions(source, include_patient=True))
    assert str(dataset.PatientName) == "Müller^Jürgen"
    assert (dataset.PatientID, dataset.PatientBirthDate, dataset.PatientSex) == ("PID-77", "19610203", "M")
    assert (dataset.StudyDate, dataset.StudyTime, dataset.StudyID) == ("20240506", "101112", "S9")
    assert (dataset.AccessionNumber, str(dataset.ReferringPhysicianName)) == ("ACC-5", "Who^Doctor")
    assert dataset.StudyInstanceUID == "1.2.3"
    assert "PatientIdentityRemoved" not in dataset
    assert "OtherPatientIDs" not in dataset


def test_the_pydicom_that_slicer_has_can_write_it(tmp_path, monkeypatch):
    """3D Slicer up to 5.10 has pydicom 2, whose `save_as` is asked for a complete file in other words."""
    former, asked = pydicom.dataset.FileDataset.save_as, []

    def save_as(self, filename, write_like_original=True):
        asked.append(write_like_original)
        former(self, filename, enforce_file_format=not write_like_original)

    monkeypatch.setattr(pydicom, "__version_info__", ("2", "4", "4"))
    monkeypatch.setattr(pydicom.dataset.FileDataset, "save_as", save_as)
    assert written(tmp_path / "us.dcm", made(PROBES["LINEAR"])).Modality == "US"
    assert asked == [False]


def test_a_file_that_is_no_source_is_refused(tmp_path):
    (tmp_path / "text.dcm").write_text("no DICOM")
    for name in ("text.dcm", "none.dcm"):
        with pytest.raises(InputError, match="cannot be read as DICOM"):
            read_source(tmp_path / name)
    empty = pydicom.Dataset()
    empty.PatientID = "1"
    empty.file_meta = pydicom.dataset.FileMetaDataset()
    empty.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    pydicom.dcmwrite(tmp_path / "empty.dcm", empty)
    with pytest.raises(InputError):
        read_source(tmp_path / "empty.dcm")


def test_another_library_reads_the_pixels(tmp_path):
    frames = made(count=3)
    dataset = written(tmp_path / "us.dcm", frames)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "us.dcm"))), dataset.pixel_array)


@pytest.mark.parametrize("name", PROBES)
@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize("patient", [False, True])
def test_a_public_validator_finds_no_error(tmp_path, source, name, count, patient):
    """dciodvfy of Debian's dicom3tools. Its warnings: an anonymous file lacks what an index of patients would need,
    and an empty laterality is for who knows the body part, which nobody told."""
    if shutil.which("dciodvfy") is None:
        pytest.skip("skipped: dciodvfy is not installed (apt-get install dicom3tools)")
    frames = made(PROBES[name], count)
    list(export(frames, tmp_path / "us.dcm", DicomOptions(source, patient)))
    done = subprocess.run(["dciodvfy", str(tmp_path / "us.dcm")], capture_output=True, text=True, timeout=60)
    said = done.stdout + done.stderr
    assert ("USMultiFrameImage" if count > 1 else "USImage") in said
    assert "Error" not in said, said
    assert done.returncode == 0
    warnings = [line for line in said.splitlines() if line.startswith("Warning")]
    assert all("Laterality" in line or "DICOMDIR" in line for line in warnings), said
