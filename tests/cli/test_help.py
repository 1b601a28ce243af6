"""Version, help and completion."""

from __future__ import annotations

import re
import resource
from pathlib import Path

import pytest
from script import COMMANDS, console_script, error_of, symile_m3

import symile_m3 as package
from symile_m3.cli.app import app

README = Path(__file__).parents[2] / "README.md"


def test_version() -> None:
    assert symile_m3("--version").stdout == f"symile-m3 {package.__version__}\n"


def test_help_names_every_command_and_is_quick() -> None:
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        result = console_script("--help")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5  # of a processor
    assert result.returncode == 0
    assert [name for name in COMMANDS if not re.search(rf"\b{name}\b", result.stdout)] == []


def test_without_arguments_shows_help() -> None:
    result = symile_m3()
    assert (result.returncode, result.stdout) == (0, symile_m3("--help").stdout)


def test_commands_are_those_tested_here() -> None:
    found = [*app.registered_commands, *app.registered_groups]
    assert sorted(info.name or "" for info in found) == sorted(COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_help_ends_in_an_example_of_the_command(command: str) -> None:
    result = symile_m3(command, "--help")
    assert result.returncode == 0
    last = " ".join(result.stdout.partition("Example:")[2].split())
    assert last.startswith(f"symile-m3 {command}")
    assert "│" not in last


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_has_help(command: str) -> None:
    from typer.main import get_command

    group = get_command(app)
    parameters = group.commands[command].params  # type: ignore[attr-defined]
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", "")] == []


@pytest.mark.parametrize("command", ["check", "translate", "import", "export"])
def test_help_of_the_commands_of_lexicon(command: str) -> None:
    from typer.main import get_command

    result = symile_m3("lexicon", command, "--help")
    assert result.returncode == 0
    assert " ".join(result.stdout.partition("Example:")[2].split()).startswith(f"symile-m3 lexicon {command} ")
    group = get_command(app).commands["lexicon"]  # type: ignore[attr-defined]
    parameters = group.commands[command].params
    assert [parameter.name for parameter in parameters if not getattr(parameter, "help", "")] == []


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_names_the_command(command: str) -> None:
    assert f"symile-m3 {command}" in README.read_text(encoding="utf-8")


def test_heavy_packages_are_imported_by_no_help() -> None:
    result = symile_m3("--help", PYTHONPROFILEIMPORTTIME="1")
    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in result.stderr.splitlines()}
    assert imported & {"torch", "matplotlib", "datasets", "numpy", "PIL"} == set()


def test_completion_is_offered() -> None:
    result = symile_m3("--show-completion", "bash")
    assert result.returncode == 0 or "--show-completion" in symile_m3("--help").stdout
    suggestions = symile_m3(_SYMILE_M3_COMPLETE="complete_bash", COMP_WORDS="symile-m3 ver", COMP_CWORD="1")
    assert suggestions.stdout.split() == ["verify"]


def test_unknown_command_and_option() -> None:
    result = symile_m3("bild")
    assert result.returncode == 2
    assert "Did you mean 'build'" in error_of(result)
    result = symile_m3("build", "--lang", "en")
    assert result.returncode == 2
    assert "--lang" in error_of(result)
