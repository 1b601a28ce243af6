"""`symile-m3 report`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from script import error_of, symile_m3


def test_writes_the_page_its_plots_and_the_figures(hostile_runs: tuple[Path, list[Path]], tmp_path: Path) -> None:
    data, runs = hostile_runs
    words = ("--data", data, "--runs", runs[0], "--runs", runs[1], "--missing-p", "none", "--bootstrap", "50")
    result = symile_m3("report", *words, "--gallery", "4", "--json", "report.json", cwd=tmp_path, timeout=300)
    assert result.returncode == 0, result.stderr
    figures = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert figures["page"] == "report/report.html"
    assert "report/report.html: 4 queries, " in result.stdout
    assert "2 runs" in result.stdout
    assert f"{figures['results']['symile']['top1']:.3f}" in result.stdout
    written = {str(path.relative_to(tmp_path)) for path in (tmp_path / "report").iterdir()}
    assert written == {figures["page"], *figures["plots"]}
    evaluated = symile_m3("eval", *words[:6], "--bootstrap", "50", "--json", "-", timeout=300)
    assert json.loads(evaluated.stdout)["results"] == figures["results"]


def test_what_cannot_be_done_is_said_in_one_line(
    tiny_dataset: Path, hostile_runs: tuple[Path, list[Path]], tmp_path: Path
) -> None:
    data, runs = hostile_runs
    (tmp_path / "file").write_text("")
    for words, code, says in (
        (("--data", data, "--runs", "none"), 1, "no trained run in none: run `symile-m3 train` first"),
        (("--data", tiny_dataset, "--runs", runs[0]), 1, "was trained on another dataset"),
        (("--data", data, "--runs", runs[0], "--runs", runs[0]), 1, "are of one recipe and seed"),
        (("--data", data, "--runs", runs[0], "--out", "file"), 2, "--out file: file is a file"),
    ):
        result = symile_m3("report", *words, cwd=tmp_path)
        assert (result.returncode, result.stdout) == (code, "")
        assert says in error_of(result)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--missing-p", "0.5,0.5"), "has a probability twice"),
        (("--missing-p", "some"), "not a probability"),
        (("--gallery", "-1"), "--gallery"),
        (("--json", "no/such/file.json"), "no/such"),
    ],
)
def test_wrong_arguments_exit_2(tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = symile_m3("report", *words, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in error_of(result)
    assert list(tmp_path.iterdir()) == []
