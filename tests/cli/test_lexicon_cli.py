"""`symile-m3 lexicon` through its console script."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from distributions import install
from script import error_of, symile_m3

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


def test_check_fails_on_a_clash(tmp_path: Path) -> None:
    (tmp_path / "names.tsv").write_text(
        "class_key\tcategory\tel\ten\n1f42c\tanimal\tδελφίνι\tdolphin\n1f41f\tanimal\tψάρι\tDolphin\n", encoding="utf-8"
    )
    for words in (("--check", "--names", "file:names.tsv", "--langs", "2"), ("check", "names.tsv")):
        result = symile_m3("lexicon", *words, cwd=tmp_path)
        assert result.returncode == 1
        assert result.stderr == ""
        assert "'dolphin' stands for 1f41f in en, 1f42c in en" in result.stdout


def test_lists_a_named_table_with_its_reviews() -> None:
    result = symile_m3("lexicon", "--names", "imagenet", "--langs", "el,en", "--category", "animal-dog")
    assert len(result.stdout.splitlines()) == 119
    assert "\tboxer" in result.stdout
    listed = json.loads(symile_m3("lexicon", "--names", "imagenet", "--json", "-").stdout)
    assert len(listed["classes"]) == 1000
    assert sum("review" in one for one in listed["classes"]) > 200


def test_languages_beyond_the_ten_have_no_built_in_names() -> None:
    result = symile_m3("lexicon", "--langs", "en,fr")
    assert result.returncode == 1
    assert "the names of emoji: no names in fr; it has names in ar, el" in error_of(result)


def test_from_upstreams_json_to_a_table_and_back(tmp_path: Path) -> None:
    exported = symile_m3("lexicon", "export", "imagenet", "--langs", "en,ja,zh", "-o", "all.json", cwd=tmp_path)
    assert exported.stdout == "all.json: 1000 classes in 3 languages, 3000 names\n"
    content = json.loads((tmp_path / "all.json").read_text(encoding="utf-8"))
    assert content["tench"].keys() == {"synset_id", "en", "ja", "zh-CN", "cls_id"}
    (tmp_path / "fix.json").write_text(
        json.dumps({"tench": {"synset_id": "n01440764", "zh-CN": "丁鱥"}}), encoding="utf-8"
    )
    imported = symile_m3(
        *("lexicon", "import", "all.json", "-o", "all.tsv", "--langs", "en,zh", "--corrections", "fix.json"),
        cwd=tmp_path,
    )
    assert imported.stdout == "all.tsv: 1000 classes in 2 languages, 2000 names\n"
    lines = (tmp_path / "all.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[:2] == ["class_key\tcategory\ten\tzh", "n01440764\t\ttench\t丁鱥"]
    checked = symile_m3("lexicon", "check", "all.tsv", "--json", "-", cwd=tmp_path)
    figures = json.loads(checked.stdout)
    assert checked.returncode == 0
    assert (figures["classes"], figures["clashes"], figures["missing"], figures["script"]) == (1000, [], [], [])


@pytest.mark.parametrize(
    ("words", "status", "says"),
    [
        (("check", "nouns"), 2, "nouns: neither a built-in table (emoji, imagenet) nor a file"),
        (("check", "gone.json"), 1, "gone.json: No such file"),
        (("check", "latin.tsv"), 1, "latin.tsv, line 2: not UTF-8 (byte 0xe9); save the file as UTF-8"),
        (("check", "broken.json"), 1, "broken.json, line 1, column 2: malformed JSON"),
        (("check", "emoji", "--langs", "french"), 2, "did you mean fr (French)?"),
        (("export", "emoji", "-o", "x.csv"), 2, "--output x.csv: name a file that ends in .json or .tsv"),
        (("import", "broken.json", "-o", "x.json"), 2, "--output x.json: name a file that ends in .tsv"),
        (("translate", "--langs", "fr", "-o", "x.json"), 2, "--output x.json: the table is tab-separated"),
        (("translate", "--langs", "fr", "-o", "x.tsv", "--with", "babel"), 2, "--names babel: unknown source of names"),
        (("translate", "--langs", "fr", "-o", "x.tsv", "--names", "emoji", "--images", "emoji"), 2, "give one of them"),
        (("translate", "--langs", "fr", "-o", "latin.tsv"), 1, "latin.tsv, line 2: not UTF-8"),
        (("translate", "--langs", "fr", "-o", "mine.tsv"), 2, "mine.tsv: holds other classes, such as cat"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input_is_one_line(words: tuple[str, ...], status: int, says: str, tmp_path: Path) -> None:
    (tmp_path / "latin.tsv").write_bytes("class_key\tcategory\tfr\ncat\t\tb\xe9b\xe9\n".encode("latin-1"))
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    (tmp_path / "mine.tsv").write_text("class_key\tcategory\tfr\ncat\t\tchat\n", encoding="utf-8")
    result = symile_m3("lexicon", *words, cwd=tmp_path)
    assert result.returncode == status, result.stderr
    assert says in error_of(result)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A distribution with a translator into Russian, which dies after `LEFT` batches where that is set."""
    code = (
        "import os\n"
        "from symile_m3.errors import SourceError\n"
        "from symile_m3.lexicon import builtin_names\n"
        "from symile_m3.lexicon.translate import english_names\n"
        "table = builtin_names('imagenet')\n"
        "known = {name: table.names[key]['uk'] for key, name in english_names({}, table).items()}\n"
        "class Ukrainian:\n"
        "    left = int(os.environ.get('LEFT', '1000'))\n"
        "    def translate(self, names, language):\n"
        "        self.left -= 1\n"
        "        if self.left < 0:\n"
        "            raise SourceError('the line is dead')\n"
        "        return [known[name] if name != 'goldfish' else 'goldfish' for name in names]\n"
        "def open_it(argument):\n"
        "    return Ukrainian()\n"
    )
    points = {"symile_m3.translators": {"slavic": "slavic_names:open_it"}}
    return install(tmp_path / "site", "slavic", {"slavic_names.py": code}, points)


def test_translates_into_a_table_and_goes_on_where_it_stopped(site: Path, tmp_path: Path) -> None:
    words = ("lexicon", "translate", "--with", "slavic", "--names", "imagenet", "--langs", "uk", "-o", "names.tsv")
    path = os.pathsep.join(filter(None, (str(site), os.environ.get("PYTHONPATH"))))
    died = symile_m3(*words, cwd=tmp_path, PYTHONPATH=path, LEFT="7")
    assert (died.returncode, error_of(died)) == (1, "the line is dead")
    went_on = symile_m3(*words, "--json", "report.json", cwd=tmp_path, PYTHONPATH=path, LEFT="14")
    assert went_on.returncode == 1  # one name is missing
    assert "uk: n01443537 (goldfish): 'goldfish' came back, in another script" in went_on.stderr
    assert "no name for n01443537 in uk" in went_on.stdout
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert (report["translated"], report["there_before"], report["failed"]) == (650, 349, 1)
    (tmp_path / "fix.tsv").write_text("class_key\tlanguage\tname\nn01443537\tuk\tзолота рибка\n", encoding="utf-8")
    mended = symile_m3(*words, "--corrections", "fix.tsv", cwd=tmp_path, PYTHONPATH=path, LEFT="0")
    assert mended.returncode == 0, mended.stderr
    assert "Next: symile-m3 build --names file:names.tsv --langs uk" in mended.stderr
    assert "1000 classes in 1 languages: 0 clashing names, 0 missing names" in mended.stdout


def test_picture() -> None:
    assert picture("1f41f") == "🐟"
    assert picture("1f408-200d-2b1b") == "🐈‍⬛"
    assert picture("n01440764") == ""
