"""`symile-m3 info`."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from script import console_script, error_of, symile_m3

from symile_m3.cli.info import info_tables
from symile_m3.cli.output import PLAIN_WIDTH
from symile_m3.exact import ExactValues
from symile_m3.info import DatasetInfo, describe_dataset


@pytest.fixture(scope="module")
def found(tiny_dataset: Path) -> DatasetInfo:
    return describe_dataset(tiny_dataset)


def lines(found: DatasetInfo) -> list[str]:
    console = Console(width=PLAIN_WIDTH, record=True, file=io.StringIO())
    for part in info_tables(found):
        console.print(part)
    return [" ".join(line.split()) for line in console.export_text().splitlines()]


def test_tables_hold_the_figures(tiny_dataset: Path, found: DatasetInfo) -> None:
    result = symile_m3("info", "--data", tiny_dataset)
    assert (result.returncode, result.stderr) == (0, "")
    text = [" ".join(line.split()) for line in result.stdout.splitlines()]
    train = found.splits["train"]
    for line in (
        "languages, L 2: el, en",
        "classes, K 8",
        "words a text, w 2",
        "split by media",
        f"fingerprint {found.fingerprint}",
        f"train 64 2 {train.bytes / 1e6:.1f} MB {train.bytes:,}",
        f"el Greek {' '.join(str(one.by_language['el']) for one in found.splits.values())}",
        "I(text; class) ln K - ln w 1.3863",
        "the class from text 1/w 0.5000",
        "the class from speech 1/K 0.1250",
        "the class from text and speech 1 1.0000",
    ):
        assert line in text
    assert any(line.startswith(f"train {train.speech.total_hours:.3f} ") for line in text)
    assert any(line.startswith("clips espeak MIT ") for line in text)


def test_json_to_a_file_and_to_standard_output(tiny_dataset: Path, found: DatasetInfo, tmp_path: Path) -> None:
    shown = console_script("info", "--data", tiny_dataset, "--json", "-")
    assert json.loads(shown.stdout) == json.loads(json.dumps(found.to_json()))
    written = symile_m3("info", "--data", tiny_dataset, "--json", tmp_path / "info.json")
    assert "Splits" in written.stdout
    assert (tmp_path / "info.json").read_text(encoding="utf-8") == shown.stdout


def test_what_is_not_known_says_so(found: DatasetInfo) -> None:
    exact = ExactValues(
        class_language=0.0,
        text_class=None,
        text_language=None,
        class_language_given_text=None,
        total_correlation=None,
        class_from_text=None,
        class_from_speech=1 / 8,
        class_from_both=1.0,
        language_from_text=None,
    )
    text = lines(replace(found, text="overlap", exact=exact))
    assert "I(text; class) not known" in text
    assert "the class from text not known" in text
    assert "the class from speech 1/K 0.1250" in text
    assert any("no simple exact value" in line for line in text)


def test_figures_from_a_part_say_of_what_they_are(tiny_dataset: Path, found: DatasetInfo) -> None:
    text = lines(describe_dataset(tiny_dataset, max_samples=32, max_clips=5))
    assert any("counted over 32 of 64 samples" in line for line in text)
    assert any(line.startswith("train: durations are from 5 of ") for line in text)
    assert not any("counted over" in line or "durations are from" in line for line in lines(found))


def test_no_dataset(tmp_path: Path) -> None:
    result = symile_m3("info", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no dataset in data/m3: run `symile-m3 build` first" in error_of(result)
