"""`symile-m3 preview`."""

from __future__ import annotations

from pathlib import Path

import pytest
from script import console_script, error_of, symile_m3

from symile_m3.preview import preview_page


def test_writes_the_page_of_the_library(tiny_dataset: Path, tmp_path: Path) -> None:
    words = ("--data", tiny_dataset, "--split", "test", "--samples", "5", "--seed", "7")
    result = console_script("preview", *words, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("preview.html: 5 of 16 test samples, ")
    assert [path.name for path in tmp_path.iterdir()] == ["preview.html"]
    page = preview_page(tiny_dataset, "test", samples=5, seed=7)
    assert (tmp_path / "preview.html").read_text(encoding="utf-8") == page.html


def test_opens_the_page_when_asked(tiny_dataset: Path, tmp_path: Path) -> None:
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    browser.chmod(0o755)
    words = ("preview", "--data", tiny_dataset, "--samples", "1", "--output", tmp_path / "a page.html")
    assert symile_m3(*words, BROWSER=f"{browser} %s").returncode == 0
    assert not (tmp_path / "opened").exists()
    assert symile_m3(*words, "--open", BROWSER=f"{browser} %s").returncode == 0
    assert (tmp_path / "opened").read_text().strip() == (tmp_path / "a page.html").as_uri()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--split", "dev"), "--split dev: give train, val or test"),
        (("--samples", "0"), "--samples"),
        (("--seed", "-1"), "--seed"),
        (("--output", "no/such/page.html"), "no/such"),
        (("--output", "."), "is a directory"),
    ],
)
def test_wrong_arguments_exit_2(tiny_dataset: Path, tmp_path: Path, words: tuple[str, ...], says: str) -> None:
    result = symile_m3("preview", "--data", tiny_dataset, *words, cwd=tmp_path)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in error_of(result)
    assert list(tmp_path.iterdir()) == []


def test_no_dataset(tmp_path: Path) -> None:
    result = symile_m3("preview", cwd=tmp_path)
    assert (result.returncode, result.stdout) == (1, "")
    assert "no dataset in data/m3: run `symile-m3 build` first" in error_of(result)
    assert list(tmp_path.iterdir()) == []
