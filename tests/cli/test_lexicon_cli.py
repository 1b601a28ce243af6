"""`symile-m3 lexicon` through its console script."""

from __future__ import annotations

import json

from script import symile_m3

from symile_m3.cli.lexicon import picture


def test_lists_tab_separated() -> None:
    result = symile_m3("lexicon", "--langs", "en,el")
    lines = [line.split("\t") for line in result.stdout.splitlines()]
    assert lines[0] == ["class_key", "emoji", "category", "el", "en"]
    assert len(lines) > 500
    assert {len(line) for line in lines} == {5}


def test_category_is_a_name_or_its_first_part() -> None:
    part, whole = (
        symile_m3("lexicon", "--category", "animal"),
        symile_m3("lexicon", "--category", "animal-bird"),
    )
    birds = whole.stdout.splitlines()[1:]
    assert birds
    assert set(birds) < set(part.stdout.splitlines())
    assert {line.split("\t")[2] for line in birds} == {"animal-bird"}


def test_check_finds_nothing_in_ours() -> None:
    result = symile_m3("lexicon", "--check")
    assert result.returncode == 0
    assert "10 languages: 0 clashing names, 0 missing names" in result.stdout


def test_json() -> None:
    listed = json.loads(symile_m3("lexicon", "--langs", "2", "--json", "-").stdout)
    assert listed["languages"] == ["el", "en"]
    assert set(listed["classes"][0]) == {"class_key", "category", "names"}
    checked = json.loads(symile_m3("lexicon", "--check", "--json", "-").stdout)
    assert (checked["classes"], checked["clashes"], checked["missing"]) == (len(listed["classes"]), [], [])


def test_check_fails_on_a_clash(capsys, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    import pytest
    import typer

    import symile_m3.lexicon
    from symile_m3.cli.lexicon import lexicon

    table = "class_key\tcategory\tel\ten\n1f42c\tanimal\tδελφίνι\tdolphin\n1f41f\tanimal\tψάρι\tDolphin\n"
    monkeypatch.setattr(symile_m3.lexicon, "open_lexicon", lambda *_: symile_m3.lexicon.parse_table(table, "t"))
    with pytest.raises(typer.Exit) as raised:
        lexicon(langs="2", category=None, names="builtin", images="emoji", check=True, json_to=None)
    assert raised.value.exit_code == 1
    assert "'dolphin' stands for 1f41f in en, 1f42c in en" in capsys.readouterr().out


def test_picture() -> None:
    assert picture("1f41f") == "🐟"
    assert picture("1f408-200d-2b1b") == "🐈‍⬛"
    assert picture("n01440764") == ""
