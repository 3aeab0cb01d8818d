"""The tissue table, the names that segmentations use, and label volumes."""

import math

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.medium import (
    GEL,
    LABEL_TABLES,
    TISSUE_TABLES,
    AcousticMedium,
    Tissue,
    label_table,
    labels_with_tissues,
    named_tissues,
    tissue_table,
)

EYE = np.eye(4)


def test_every_tissue_is_consistent_and_has_sources():
    table = tissue_table()
    assert len(table) > 40
    for tissue in table.values():
        assert tissue.impedance_mrayl == pytest.approx(tissue.density * tissue.speed * 1e-6, rel=0.03)
        assert tissue.attenuation_db_cm_mhz >= 0
        assert 0.9 < tissue.attenuation_exponent <= 2
        assert 0 <= tissue.scattering < 4
        for quantity in ("attenuation", "scattering"):
            assert quantity in tissue.source or tissue.source.startswith(("all:", "assumption")) or tissue.name == "gel"


@pytest.mark.parametrize(
    ("tissue", "impedance"),
    [
        ("water", 1.49),
        ("fat", 1.31),
        ("muscle", 1.73),
        ("liver", 1.71),
        ("kidney", 1.66),
        ("blood", 1.66),
        ("skin", 1.80),
        ("brain", 1.617),
        ("grey matter", 1.588),
        ("white matter", 1.600),
        ("csf", 1.518),
        ("cortical skull", 5.2),
        ("trabecular bone", 3.9),
        ("tumour", 1.61),
    ],
)
def test_reference_impedances(tissue, impedance):
    assert tissue_table()[tissue].impedance_mrayl == pytest.approx(impedance, rel=0.01)


def test_the_seeds_impedances_are_a_table_beside_ours():
    ours, seed = tissue_table(), tissue_table("seed")
    assert TISSUE_TABLES == ("diffus", "seed")
    given = {"bone": 6.46, "liver": 1.66, "blood": 1.67, "fat": 1.33, "air": 0.00043}
    assert {name: seed[name].impedance_mrayl for name in given} == given
    assert list(seed) == list(ours)
    for name, tissue in seed.items():
        assert tissue.properties[1:] == ours[name].properties[1:]
        assert name in given or tissue == ours[name]
    assert seed.find("Left rib 13") == seed["bone"]
    assert "blog post" in seed["bone"].source
    with pytest.raises(InputError, match="diffus, seed"):
        tissue_table("mystery")


def test_a_segmentation_takes_the_tissues_of_a_table():
    labels = np.ones((4, 4, 4), np.uint8)
    labels[2:] = 2
    names = {1: "liver", 2: "kidney", 3: "who knows"}
    table = labels_with_tissues(names, named_tissues("seed"))
    assert table == {1: tissue_table("seed")["liver"], 2: tissue_table()["kidney"], 3: "who knows"}
    assert AcousticMedium.from_labels(labels, table, EYE).maps[0, 0, 1, 1].item() == pytest.approx(1.66, abs=1e-4)
    assert AcousticMedium.from_labels(labels, names, EYE).maps[0, 0, 1, 1].item() == pytest.approx(1.711, abs=2e-3)
    assert labels_with_tissues("totalsegmentator-v2", named_tissues("seed"))[5].impedance_mrayl == 1.66


def test_scattering_scale():
    scattering = {name: tissue.scattering for name, tissue in tissue_table().items()}
    assert scattering["white matter"] == 1
    assert scattering["air"] == scattering["gel"] == scattering["water"] == 0
    assert scattering["csf"] < scattering["blood"] < scattering["grey matter"] < 1 < scattering["tumour"]
    assert scattering["sulcus"] == 1  # what shines in it is its sheet
    assert 20 * math.log10(scattering["grey matter"]) == pytest.approx(-1.5)  # nearly as bright, as in real frames


@pytest.mark.parametrize(
    ("name", "tissue"),
    [
        ("liver", "liver"),
        ("Liver", "liver"),
        ("kidney_left", "kidney"),
        ("Right Kidney", "kidney"),
        ("vertebrae_L5", "bone"),
        ("T3 vertebra", "bone"),
        ("rib_left_4", "bone"),
        ("Left rib 13", "bone"),
        ("iliac_vena_right", "blood"),
        ("left ventricle", "blood"),
        ("left lateral ventricle", "csf"),
        ("Left-Lateral-Ventricle", "csf"),
        ("ctx-lh-cortex", "grey matter"),
        ("cerebro-spinal fluid", "csf"),
        ("Gray Matter", "grey matter"),
        ("urinary_bladder", "urine"),
        ("Tumor", "tumour"),
        ("background", "gel"),
        ("right frontal bone", "bone"),
    ],
)
def test_names_of_structures(name, tissue):
    assert tissue_table().find(name).name == tissue


@pytest.mark.parametrize("name", ["Segment_1", "", "left", "L5", "my thing"])
def test_names_that_say_nothing(name):
    assert tissue_table().find(name) is None


@pytest.mark.parametrize(
    ("model", "count", "some"),
    [
        ("totalsegmentator-v1", 104, {1: "spleen", 5: "liver", 50: "brain", 58: "rib_left_1", 104: "urinary_bladder"}),
        (
            "totalsegmentator-v2",
            117,
            {5: "liver", 51: "heart", 79: "spinal_cord", 90: "brain", 117: "costal_cartilages"},
        ),
        ("totalsegmentator-mr", 50, {5: "liver", 19: "vertebrae", 21: "spinal_cord", 50: "brain"}),
        ("freesurfer", 48, {2: "Left-Cerebral-White-Matter", 42: "Right-Cerebral-Cortex", 24: "CSF"}),
    ],
)
def test_tables_of_public_models(model, count, some):
    table = label_table(model)
    assert len(table) == count
    assert {value: table[value] for value in some} == some
    assert all(tissue_table().find(name) for name in table.values())


def test_unknown_table():
    with pytest.raises(InputError, match=LABEL_TABLES[0]):
        label_table("mystery")


@pytest.mark.parametrize(
    "table",
    [
        {1: "liver", 7: "kidney_left"},
        [(1, "Liver"), (7, "Left kidney"), (9, "unused nonsense")],
        {1: "liver", 7: tissue_table()["kidney"]},
    ],
)
@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_labels_become_tissues(table, dtype):
    labels = np.zeros((3, 4, 5), dtype)
    labels[1], labels[2, 2] = 1, 7
    maps = AcousticMedium.from_labels(labels, table, EYE, antialias=False).maps
    assert maps[:, 0, 0, 0].tolist() == pytest.approx(GEL)
    assert maps[:, 1, 3, 4].tolist() == pytest.approx(tissue_table()["liver"].properties)
    assert maps[:, 2, 2, 0].tolist() == pytest.approx(tissue_table()["kidney"].properties)


def test_label_zero_may_be_a_tissue_and_labels_may_be_large():
    labels = torch.tensor([[[0, 3000000], [0, 5]]] * 2)
    mine = Tissue("mine", 1000, 1700, 1.7, 0.3)
    maps = AcousticMedium.from_labels(labels, {0: "water", 5: "fat", 3000000: mine}, EYE, antialias=False).maps
    assert maps[0, 0].tolist() == [pytest.approx([1.491, 1.7]), pytest.approx([1.491, 1.312])]


def test_labels_without_a_tissue_are_named():
    labels = np.zeros((3, 3, 3), int)
    labels[0, 0] = [1, 4, 9]
    with pytest.raises(InputError, match=r'label 4, 9 \("Segment_9"\)'):
        AcousticMedium.from_labels(labels, {1: "liver", 9: "Segment_9"}, EYE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.zeros((0, 3, 3), int), "empty"),
        (np.zeros((3, 3), int), "3-D"),
        (np.zeros((3, 3, 3, 2), int), "3-D"),
        (np.full((3, 3, 3), 0.5), "whole numbers"),
        (np.full((3, 3, 3), np.nan), "whole numbers"),
        (np.full((3, 3, 3), -1), "negative label -1"),
    ],
)
def test_bad_label_volumes(labels, message):
    with pytest.raises(InputError, match=message):
        AcousticMedium.from_labels(labels, {}, EYE)


def test_antialiasing_softens_steps_and_keeps_the_inside():
    labels = np.zeros((12, 12, 12), int)
    labels[:, :, 6:] = 1
    sharp, soft = (AcousticMedium.from_labels(labels, {1: "bone"}, EYE, antialias=a).maps for a in (False, True))
    assert soft[0, 6, 6].diff().max() < 0.7 * sharp[0, 6, 6].diff().max()
    torch.testing.assert_close(soft[:, 6, 6, [0, -1]], sharp[:, 6, 6, [0, -1]])
    assert soft[0].mean().item() == pytest.approx(sharp[0].mean().item(), rel=1e-4)


def test_another_medium_elsewhere():
    under = AcousticMedium(torch.rand(4, 3, 3, 3), EYE)
    labels = np.zeros((3, 3, 3), int)
    labels[1, 1, 1] = 2
    maps = AcousticMedium.from_labels(labels, {2: "blood"}, EYE, antialias=False, elsewhere=under).maps
    assert maps[:, 1, 1, 1].tolist() == pytest.approx(tissue_table()["blood"].properties)
    torch.testing.assert_close(maps[:, 0], under.maps[:, 0])
    with pytest.raises(InputError, match="different grids"):
        AcousticMedium.from_labels(np.zeros((2, 3, 3), int), {}, EYE, elsewhere=under)


def test_a_real_segmentation(shared_data):
    sitk = pytest.importorskip("SimpleITK")
    folder = shared_data / "ct"
    labels, hu = (
        sitk.GetArrayFromImage(sitk.ReadImage(str(folder / f"abdomen_pelvis_ct_3mm{part}.nii.gz")))
        for part in ("_totalseg_labels", "")
    )
    maps = AcousticMedium.from_labels(labels, "totalsegmentator-v1", EYE, antialias=False).maps
    names = label_table("totalsegmentator-v1")
    for value in np.unique(labels).astype(int)[1:]:
        inside = torch.from_numpy(labels == value)
        expected = tissue_table().find(names[value]).impedance_mrayl
        assert maps[0][inside].unique().tolist() == pytest.approx([expected])
    # The names are those of the numbers: bone is bright in the CT and hard in the medium, urine is neither.
    assert np.median(hu[maps[0].numpy() > 5]) > 150
    assert abs(np.median(hu[labels == 104])) < 30
