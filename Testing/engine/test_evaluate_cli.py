"""Target registration error on the command line: landmark files in, errors before and after out."""

import csv
from pathlib import Path

import numpy as np
import torch
from diffus.geometry.pose import twist_to_matrix
from diffus.io.transforms import write_transform
from support.commands import run


def evaluate(options, *lists):
    return run("evaluate", options, *lists)


def columns(path):
    rows = list(csv.DictReader(Path(path).read_text().splitlines()))
    return {name: np.array([float(row[name]) for row in rows]) for name in rows[0] if name != "landmark"}


def test_errors_at_landmarks_before_and_after(tmp_path):
    points = np.random.default_rng(0).normal(0, 30, (6, 3))
    truth = twist_to_matrix(torch.tensor([3.0, 4.0, 0.0, 0.0, 0.0, 0.2], dtype=torch.float64)).numpy()
    moved = points @ truth[:3, :3].T + truth[:3, 3]
    moved[0, 2] += 3.0
    for name, values in (("mri", points), ("us", moved[::-1])):
        labels = [f"L{n}" for n in range(6)][:: 1 if name == "mri" else -1]
        lines = ["name,x,y,z", *(f"{label},{x},{y},{z}" for label, (x, y, z) in zip(labels, values))]
        (tmp_path / f"{name}.csv").write_text("\n".join(lines))
    write_transform(tmp_path / "truth.tfm", truth)
    outputs = {"transform": tmp_path / "truth.tfm", "output": tmp_path / "tre.csv", "fit": tmp_path / "fit.tfm"}
    result = evaluate(outputs, tmp_path / "mri.csv", tmp_path / "us.csv")
    assert result.exit_code == 0, result.output
    found = columns(tmp_path / "tre.csv")
    np.testing.assert_allclose(found["transformed_mm"], [3, 0, 0, 0, 0, 0], atol=1e-4)
    np.testing.assert_allclose(found["initial_mm"], np.linalg.norm(moved - points, axis=1), atol=1e-4)
    assert (found["rigid_fit_mm"] ** 2).sum() < (found["transformed_mm"] ** 2).sum()
    summary = {line.split()[0]: line.split()[1:] for line in result.output.splitlines() if line.strip()}
    assert summary["mean"][1] == "0.50"
    assert summary["sd"][1] == "1.22"
    assert summary["max"][1] == "3.00"
    again = {"transform": tmp_path / "fit.tfm", "output": tmp_path / "again.csv"}
    assert evaluate(again, tmp_path / "mri.csv", tmp_path / "us.csv").exit_code == 0
    np.testing.assert_allclose(columns(tmp_path / "again.csv")["transformed_mm"], found["rigid_fit_mm"], atol=2e-4)


def test_a_tag_file_holds_both_lists(tmp_path):
    tag = tmp_path / "pairs.tag"
    tag.write_text('MNI Tag Point File\nVolumes = 2;\nPoints =\n 1 2 3 1 2 4 "1"\n 4 5 6 4 5 8 "2";\n')
    result = evaluate({"output": tmp_path / "tre.csv"}, tag)
    assert result.exit_code == 0, result.output
    assert columns(tmp_path / "tre.csv")["initial_mm"].tolist() == [1.0, 2.0]
    (tmp_path / "one.csv").write_text("A,1,2,3\nB,2,3,4\n")
    for options, paths, words in (
        ({}, ["one.csv"], "Two lists"),
        ({"fit": tmp_path / "x.tfm"}, ["pairs.tag"], "three"),
    ):
        result = evaluate(options, *(tmp_path / path for path in paths))
        assert result.exit_code == 2
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "x.tfm").exists()


def test_what_cannot_be_evaluated_is_refused_and_nothing_is_touched(tmp_path):
    (tmp_path / "a.csv").write_text("A,1,2,3\nB,4,5,6\nC,7,0,0\n")
    (tmp_path / "nan.csv").write_text("A,1,2,3\nB,nan,5,6\nC,7,0,0\n")
    (tmp_path / "twice.csv").write_text("A,1,2,3\nA,4,5,6\nC,7,0,0\n")
    write_transform(tmp_path / "start.tfm", np.eye(4))
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for options, second, words in (
        ({"output": tmp_path / "new.csv"}, "nan.csv", "NaN or infinite"),
        ({"output": tmp_path / "new.csv"}, "twice.csv", "'A' stands for more than one"),
        ({"output": tmp_path / "a.csv"}, "a.csv", "would be overwritten"),
        ({"transform": tmp_path / "start.tfm", "fit": tmp_path / "start.tfm"}, "a.csv", "would be overwritten"),
    ):
        result = evaluate(options, tmp_path / "a.csv", tmp_path / second)
        assert result.exit_code == 2, result.output
        assert words in result.stderr
        assert len(result.stderr.strip().splitlines()) == 1
        assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_points_on_one_line_have_errors_but_no_fit(tmp_path):
    (tmp_path / "a.csv").write_text("\ufeffA,1,1,1\nB,2,2,2\nC,3,3,3\n", encoding="utf-8")  # as spreadsheets write
    (tmp_path / "b.csv").write_text("C,3,3,4\nA,1,1,2\nB,2,2,3\n")
    paths = tmp_path / "a.csv", tmp_path / "b.csv"
    assert evaluate({"output": tmp_path / "tre.csv"}, *paths).exit_code == 0
    assert columns(tmp_path / "tre.csv")["initial_mm"].tolist() == [1.0, 1.0, 1.0]
    assert "line" in evaluate({"fit": tmp_path / "fit.tfm"}, *paths).stderr


def test_resect_figures(shared_data, tmp_path):
    """5.47 mm at the start over the 16 cases present; 1.14 mm with the least squares transforms."""
    means = []
    for us in sorted((shared_data / "landmarks").glob("*_us.mrk.json")):
        case = us.name.removesuffix("_us.mrk.json")
        options = {"transform": us.with_name(f"{case}_us_to_mri_rigid_lsq.tfm"), "output": tmp_path / f"{case}.csv"}
        assert evaluate(options, us, us.with_name(f"{case}_mri.mrk.json")).exit_code == 0
        found = columns(tmp_path / f"{case}.csv")
        means.append([found[name].mean() for name in ("initial_mm", "transformed_mm", "rigid_fit_mm")])
    assert len(means) == 16
    np.testing.assert_allclose(np.mean(means, 0), [5.47, 1.14, 1.14], atol=0.005)
