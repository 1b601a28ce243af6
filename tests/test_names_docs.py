"""The documentation of names: its files are read and its commands run."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest

from symile_m3.lexicon import parse_names

TEXT = (Path(__file__).parents[1] / "docs" / "sources" / "names.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", TEXT, re.DOTALL)


def test_its_files_say_the_same_in_each_form() -> None:
    (record,), (table, fixes) = blocks("json"), blocks("tsv")
    names = parse_names(record, "names.json")
    assert names.names == parse_names(table, "names.tsv").names
    assert names.corrected(parse_names(fixes, "fixes.tsv")).names["n01443537"]["ro"] == "peștișor auriu"


def test_its_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    from typer.main import get_command

    from symile_m3.cli.app import app

    (record,), (_, fixes), (console,) = blocks("json"), blocks("tsv"), blocks("console")
    (tmp_path / "names.json").write_text(record, encoding="utf-8")
    (tmp_path / "fixes.tsv").write_text(fixes, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["symile-m3"])
    commands = re.findall(r"^\$ symile-m3 (.+)$", console, re.MULTILINE)
    assert len(commands) == 5
    for command in commands:
        assert not get_command(app).main(shlex.split(command), prog_name="symile-m3", standalone_mode=False), command
    said = capsys.readouterr().out
    assert "Chihuahua" in said
    assert "2 classes in 3 languages: 0 clashing names, 0 missing names" in said
    assert "peștișor auriu" in (tmp_path / "mended.tsv").read_text(encoding="utf-8")
    assert "zh-CN" not in (tmp_path / "translations.json").read_text(encoding="utf-8")
