"""`symile-m3 xor` through the console script."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from script import error_of, symile_m3

SMALL = ("--dim", "2", "--seeds", "1", "--steps", "12", "--workers", "1")


def test_table_plot_and_json(tmp_path: Path) -> None:
    result = symile_m3(
        "xor", *SMALL, "--seeds", "2", "--p", "0,1", "--plot", "xor.png", "--json", "xor.json", cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert "Top-1 of b from a and c among 4: 2 bits, 2 seeds, 12 steps" in result.stdout
    assert "I(a;b|c)" in result.stdout
    assert "Plot: xor.png" in result.stdout
    assert (tmp_path / "xor.png").stat().st_size > 10_000
    report = json.loads((tmp_path / "xor.json").read_text())
    assert report["points"][1]["results"]["symile"]["top1"] == 1.0
    assert report["points"][1]["information"]["first_last"] == 0.0
    assert {path.name for path in tmp_path.iterdir()} == {"xor.png", "xor.json"}


def test_json_on_standard_output_is_the_same_every_time() -> None:
    words = ("xor", *SMALL, "--p", "0.5", "--missing-p", "0.2", "--objective", "symile", "--json", "-")
    first, second = (json.loads(symile_m3(*words).stdout) for _ in range(2))
    assert {**first, "seconds": 0} == {**second, "seconds": 0}
    hidden = first["points"][0]["results"]["symile"]["hidden"]
    assert [group["missing"] for group in hidden["by_missing"]] == [0, 1, 2]


def test_parity_of_four_with_missing_vectors_is_a_table_by_how_many_are_missing(tmp_path: Path) -> None:
    result = symile_m3(
        *("xor", "--modalities", "4", "--missing-p", "0.1", "--objective", "symile"),
        *("--seeds", "1", "--steps", "30", "--workers", "1", "--plot", "bars.png"),
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "bars.png").stat().st_size > 5_000
    shown = " ".join(result.stdout.split())
    assert "Top-1 of b from the 3 others among 2: 1 bit, 1 seed, 30 steps" in shown
    assert "p = 1: queries that lack vectors, each with probability 0.1" in shown


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--p", "1.5"), "1.5 is not a probability"),
        (("--predict", "d"), "the 3 vectors are a, b, c"),
        (("--objective", "clap"), "clap"),
    ],
)
def test_wrong_input_is_one_line(words: tuple[str, ...], message: str) -> None:
    result = symile_m3("xor", *words)
    assert result.returncode == 2
    assert message in error_of(result)
