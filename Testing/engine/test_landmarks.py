"""Landmark files, target registration error, and the closed form, on RESECT and by construction."""

import numpy as np
import pytest
import torch
from diffus.errors import InputError
from diffus.geometry.pose import twist_to_matrix
from diffus.io.landmarks import read_landmarks
from diffus.register.landmarks import match_landmarks, pair_names, rigid_from_landmarks, target_errors


def test_resect_initial_and_least_squares_errors(shared_data):
    initial, residual = [], []
    for mri in sorted((shared_data / "landmarks").glob("*_mri.mrk.json")):
        us = mri.with_name(mri.name.replace("_mri", "_us"))
        a, b = match_landmarks(read_landmarks(us)[0], read_landmarks(mri)[0])
        initial.append(float(target_errors(torch.eye(4, dtype=torch.float64), a, b).mean()))
        residual.append(float(target_errors(rigid_from_landmarks(a, b), a, b).mean()))
    assert len(initial) == 16
    assert np.mean(initial) == pytest.approx(5.47, abs=0.005)
    assert np.mean(residual) == pytest.approx(1.14, abs=0.005)


def test_closed_form_finds_a_known_motion_and_never_mirrors():
    generator = torch.Generator().manual_seed(1)
    points = torch.randn(6, 3, generator=generator, dtype=torch.float64) * 30
    truth = twist_to_matrix(torch.tensor([5.0, -3.0, 2.0, 0.4, -0.2, 1.1], dtype=torch.float64))
    moved = points @ truth[:3, :3].T + truth[:3, 3]
    assert torch.allclose(rigid_from_landmarks(points, moved), truth, atol=1e-10)
    mirrored = rigid_from_landmarks(points, points * torch.tensor([-1.0, 1.0, 1.0]))
    assert torch.linalg.det(mirrored[:3, :3]) == pytest.approx(1.0)
    flat = points.clone()
    flat[:, 2] = 0
    assert torch.linalg.det(rigid_from_landmarks(flat, flat)[:3, :3]) == pytest.approx(1.0)


def test_two_points_or_a_line_are_refused():
    with pytest.raises(InputError, match="three"):
        rigid_from_landmarks(torch.zeros(2, 3), torch.zeros(2, 3))
    line = torch.arange(4.0)[:, None] * torch.ones(3)
    with pytest.raises(InputError, match="line"):
        rigid_from_landmarks(line, line)


def test_csv_tag_and_fcsv_lists(tmp_path):
    (tmp_path / "a.csv").write_text("name,x,y,z\nA,1,2,3\nB,4,5,6\n")
    (tmp_path / "b.fcsv").write_text(
        "# Markups fiducial file version = 4.11\n# CoordinateSystem = LPS\n"
        "# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n"
        "1,-4,-5,6,0,0,0,1,1,1,0,B\n2,-1,-2,3,0,0,0,1,1,1,0,A\n"
    )
    (tmp_path / "c.tag").write_text(
        'MNI Tag Point File\nVolumes = 2;\n%c\nPoints =\n 1 2 3 1 2 4 "1"\n 4 5 6 4 5 8 "2";\n'
    )
    a, b = match_landmarks(read_landmarks(tmp_path / "a.csv")[0], read_landmarks(tmp_path / "b.fcsv")[0])
    assert torch.equal(a, b)
    assert torch.equal(a, torch.tensor([[1.0, 2, 3], [4, 5, 6]], dtype=torch.float64))
    first, second = read_landmarks(tmp_path / "c.tag")
    assert target_errors(torch.eye(4).double(), first.points, second.points).tolist() == [1.0, 2.0]


def test_files_that_hold_no_points_are_refused_in_words(tmp_path):
    (tmp_path / "bad.csv").write_text("nothing here\n")
    (tmp_path / "bad.mrk.json").write_text("{}")
    (tmp_path / "hole.csv").write_text("A,,2,3\nB,4,5,6\n")
    (tmp_path / "binary.csv").write_bytes(bytes(range(128, 256)))
    for name in ("bad.csv", "bad.mrk.json", "hole.csv", "binary.csv", "missing.tag"):
        with pytest.raises(InputError, match=name):
            read_landmarks(tmp_path / name)


@pytest.mark.parametrize(
    ("first", "second", "pairs"),
    [
        ("AB", "BA", [(0, 1), (1, 0)]),
        (["L-1", "R-1", "L-2"], ["R-1", "L-2", "L-1"], [(0, 2), (1, 0), (2, 1)]),  # equal names before numbers
        (["F-1", "F-2", "F-3"], ["U-3", "U-2", "U-1"], [(0, 2), (1, 1), (2, 0)]),
        (["F-1", "tip", "F-3"], ["U-03", "tip", "U-1", "U-9"], [(0, 2), (1, 1), (2, 0)]),
        (["a", "b"], ["c", "d"], [(0, 0), (1, 1)]),
        (["", ""], ["", ""], [(0, 0), (1, 1)]),
        (["x", "x", "A"], ["A"], [(2, 0)]),  # what has no partner does not matter
    ],
)
def test_landmarks_are_paired_by_name_then_number_then_order(first, second, pairs):
    assert pair_names(first, second) == pairs


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (["A", "A"], ["A", "B"], "'A' stands for more than one"),
        (["L-1", "R-1"], ["U-1", "U-2"], "'1' stands for more than one"),
        (["A", "B", "C"], ["A", "B", "X"], "not 'C'"),
        (["a", "b"], ["c"], "differ in length"),
        ([], [], "empty"),
    ],
)
def test_ambiguous_names_are_refused(first, second, words):
    with pytest.raises(InputError, match=words):
        pair_names(first, second)


def test_coordinates_that_are_no_numbers_are_refused(tmp_path):
    (tmp_path / "a.csv").write_text("name,x,y,z\nA,1,nan,3\nB,4,5,6\n")
    (tmp_path / "b.fcsv").write_text("# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label\n1,inf,2,3,0,0,0,1,1,1,0,A\n")
    (tmp_path / "c.tag").write_text('MNI Tag Point File\nVolumes = 1;\nPoints =\n 1 -inf 3 "1";\n')
    (tmp_path / "d.mrk.json").write_text('{"markups": [{"controlPoints": [{"label": "A", "position": [NaN, 0, 0]}]}]}')
    for name in ("a.csv", "b.fcsv", "c.tag", "d.mrk.json"):
        with pytest.raises(InputError, match=f"{name} holds NaN or infinite"):
            read_landmarks(tmp_path / name)
    for text in ("[]", '{"markups": ["x"]}', '{"markups": [{"controlPoints": ["x"]}]}', '{"markups": {}}'):
        (tmp_path / "e.mrk.json").write_text(text)
        with pytest.raises(InputError, match=r"e\.mrk\.json"):
            read_landmarks(tmp_path / "e.mrk.json")
