"""The DICOM study and modality of a volume: from Slicer's DICOM database, else from the subject hierarchy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import slicer

if TYPE_CHECKING:
    from pydicom import Dataset

INSTANCES_ATTRIBUTE = "DICOM.instanceUIDs"
PATIENT = ("PatientName", "PatientID", "PatientBirthDate", "PatientSex")
STUDY = ("StudyDate", "StudyTime", "StudyID", "StudyDescription")


def sourceOf(volumeNode) -> Dataset | None:
    """A dataset that tells the study and the patient of a volume or segmentation; None where it is of no study."""
    return _fromDatabase(volumeNode) or _fromHierarchy(volumeNode)


def modality(node) -> str:
    """The modality of the DICOM series that a volume was loaded from, such as CT or MR; empty where there is none."""
    hierarchy, item = _hierarchyItem(node)
    if not item:
        return ""
    attribute = slicer.vtkMRMLSubjectHierarchyConstants.GetDICOMSeriesModalityAttributeName()
    return hierarchy.GetItemAttribute(item, attribute).strip().upper()


def _hierarchyItem(node) -> tuple:
    """The subject hierarchy of a node's scene, and the node's item in it; 0 where it has none."""
    scene = node.GetScene()
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode") if scene is not None else None
    return hierarchy, hierarchy.GetItemByDataNode(node) if hierarchy is not None else 0


def _fromDatabase(volumeNode) -> Dataset | None:
    """The header of the volume's first file, if the database still knows it."""
    instances = (volumeNode.GetAttribute(INSTANCES_ATTRIBUTE) or "").split()
    database = getattr(slicer, "dicomDatabase", None)
    path = database.fileForInstance(instances[0]) if instances and database is not None else ""
    if not path:
        return None
    from diffus.errors import InputError
    from diffus.export.ultrasound_dicom import read_source

    try:
        return read_source(path)
    except InputError:  # the file has been moved since: the scene may know the study too
        return None


def _fromHierarchy(volumeNode) -> Dataset | None:
    """What the subject hierarchy holds of the volume's study and patient."""
    hierarchy, item = _hierarchyItem(volumeNode)
    if not item:
        return None
    study = hierarchy.GetItemAncestorAtLevel(item, "Study")
    uid = hierarchy.GetItemUID(study, "DICOM") if study else ""
    if not uid:
        return None
    from pydicom import Dataset

    source = Dataset()
    source.StudyInstanceUID = uid
    patient = hierarchy.GetItemAncestorAtLevel(item, "Patient")
    for level, names in ((study, STUDY), (patient, PATIENT)):
        for name in names:
            value = hierarchy.GetItemAttribute(level, f"DICOM.{name}") if level else ""
            if name.endswith(("Date", "Time")):  # the database writes 2024-05-06, DICOM 20240506
                value = value.replace("-", "").replace(":", "")
            if value:
                setattr(source, name, value)
    return source
