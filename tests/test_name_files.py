"""Files of names: their three forms, what is wrong with a bad one, corrections, and names for a pool's classes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from symile_m3.errors import LexiconError, UsageError
from symile_m3.images import EmojiPool
from symile_m3.lexicon import builtin_names, check_names, open_lexicon, parse_names, read_names, read_source
from symile_m3.media import Recipe

# As the authors' translations.json has them.
UPSTREAM = """{
    "tench": {"synset_id": "n01440764", "ar": "سمك التنش", "zh-CN": "丁桂鱼", "en": "tench", "cls_id": 0},
    "crane bird": {"synset_id": "n02012849", "ar": "كركي", "zh-CN": "鹤", "en": "crane", "cls_id": 1}
}"""
PETS = {
    "cat": {"fr": "chat", "ru": "кошка", "ro": "pisică"},
    "dog": {"fr": "chien", "ru": "собака", "ro": "câine"},
    "horse": {"fr": "cheval", "ru": "лошадь", "ro": "cal"},
    "bird": {"fr": "oiseau", "ru": "птица", "ro": "pasăre"},
}


@dataclass(frozen=True)
class Folders:
    """Images whose classes are named nowhere but in a file."""

    keys: tuple[str, ...] = tuple(PETS)
    table: str = ""
    suffix: str = "jpg"

    def classes(self) -> Mapping[str, int]:
        return dict.fromkeys(self.keys, 5)

    def labels(self) -> Mapping[str, str]:
        return {key: key for key in self.keys}

    def recipes(self, groups: object) -> list[Recipe]:
        return []

    def make(self, recipe: Recipe) -> bytes:
        return b""


def pets(tmp_path: Path, **changes: Mapping[str, str]) -> str:
    """A spec of a file of the pets' names; a class given as empty is left out."""
    path = tmp_path / "names.json"
    path.write_text(json.dumps({key: row for key, row in {**PETS, **changes}.items() if row}), encoding="utf-8")
    return f"file:{path}"


def test_upstreams_json() -> None:
    table = parse_names(UPSTREAM, "translations.json")
    assert table.names == {
        "n01440764": {"ar": "سمك التنش", "zh": "丁桂鱼", "en": "tench"},
        "n02012849": {"ar": "كركي", "zh": "鹤", "en": "crane"},
    }
    assert table.languages == ("ar", "en", "zh")
    written = json.loads(table.to_json(["ar", "zh"]))
    assert written["tench"] == {"synset_id": "n01440764", "ar": "سمك التنش", "zh-CN": "丁桂鱼", "cls_id": 0}
    assert parse_names(table.to_json(["ar", "en", "zh"]), "again").names == table.names


def test_without_a_synset_the_key_is_the_class() -> None:
    assert parse_names('{"cat": {"fr": "chat"}}', "x").names == {"cat": {"fr": "chat"}}


def test_tables_go_out_and_come_back() -> None:
    for name in ("emoji", "imagenet"):
        table = builtin_names(name)
        again = parse_names(table.to_table(table.languages), name)
        assert (again.names, again.categories, again.reviews) == (table.names, table.categories, table.reviews)
        assert parse_names(table.to_json(table.languages), name).names == table.names


def test_a_table_may_have_gaps_and_codes_are_read_as_ours() -> None:
    table = parse_names("class_key\tcategory\tpt_br\tzh-CN\treview\ncat\tpet\tgato\t\tpt: x\n", "x.tsv")
    assert table.names == {"cat": {"pt-BR": "gato"}}
    assert (table.categories, table.reviews) == ({"cat": "pet"}, {"cat": "pt: x"})
    assert table.in_languages(["pt", "zh"]) == {"cat": {"pt": "gato"}}


def test_one_name_a_line() -> None:
    table = parse_names("class_key\tlanguage\tname\ncat\tfr\tchat\n\ncat\tru\t кошка  домашняя \n", "x.tsv")
    assert table.names == {"cat": {"fr": "chat", "ru": "кошка домашняя"}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"cat": {"fr": "chat"', r"line 1, column 22: malformed JSON"),
        ("[]", "a JSON object of classes is needed"),
        ("[" * 100_000, "malformed JSON"),
        ('{"cat": "chat"}', r"class 'cat': an object of names is needed"),
        ('{"cat": {"fr": 3}}', r"class 'cat': the name in fr is 3; a text is needed"),
        ('{"cat": {"fr": null}}', r"class 'cat': the name in fr is None"),
        ('{"cat": {"fr": "un_chat"}}', r"class 'cat', fr: 'un_chat' contains '_'"),
        ('{"cat": {"french": "chat"}}', r"class 'cat': unknown language 'french'; did you mean fr \(French\)\?"),
        ('{"cat": {"fr": "a"}, "cat": {"fr": "b"}}', "'cat' is there twice"),
        ('{"a": {"synset_id": "n1"}, "b": {"synset_id": "n1"}}', "class 'b': class n1 is there twice"),
        ('{"a": {"synset_id": 7}}', "synset_id 7 is no key"),
        ('{"a": {"zh": "x", "zh-CN": "y"}}', "class 'a': two names in zh"),
        ("cat\tfr\tchat", "neither JSON nor a table; the first line must be"),
        ("class_key\tlanguage\tname\ncat\tfr", "line 2: class_key, language and name are needed"),
        ("class_key\tlanguage\tname\ncat\tfr\ta\ncat\tfr\tb", "line 3: class cat has two names in fr"),
        ("class_key\tcategory\tfr\ncat\tx\tle_chat", "line 2, fr: 'le_chat' contains '_'"),
        ("class_key\tcategory\txx\ncat\tx\ty", "line 2: unknown language 'xx'"),
    ],
)
def test_a_malformed_file_is_answered_with_where(text: str, message: str) -> None:
    with pytest.raises(LexiconError, match=rf"^mine\.names.*{message}"):
        parse_names(text, "mine.names")


def test_a_file_that_is_not_utf8_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "latin.json"
    path.write_bytes('{\n"cat": {"fr": "b\xe9b\xe9"}}'.encode("latin-1"))
    with pytest.raises(LexiconError, match=r"latin\.json, line 2: not UTF-8 \(byte 0xe9\); save the file as UTF-8"):
        read_names(path)
    path.write_bytes(b"\xef\xbb\xbf" + b'{"cat": {"fr": "chat"}}')
    assert read_names(path).names == {"cat": {"fr": "chat"}}
    with pytest.raises(LexiconError, match=r"gone\.json: No such file"):
        read_names(tmp_path / "gone.json")
    with pytest.raises(LexiconError, match="directory"):
        read_names(tmp_path)


def test_a_source_of_names_is_a_table_or_a_file(tmp_path: Path) -> None:
    assert read_source("imagenet").languages == builtin_names("imagenet").languages
    spec = pets(tmp_path)
    assert read_source(spec).names == read_source(spec.removeprefix("file:")).names == PETS
    with pytest.raises(UsageError, match="nouns: neither a built-in table"):
        read_source("nouns")
    with pytest.raises(UsageError, match="needs the path of a file"):
        read_source("file:")


def test_names_of_a_pool_from_a_file(tmp_path: Path) -> None:
    lexicon = open_lexicon(pets(tmp_path), ("fr", "ro", "ru"), Folders())
    assert lexicon.class_keys == ("bird", "cat", "dog", "horse")
    assert lexicon.languages == ("fr", "ro", "ru")
    assert lexicon.names[1] == ("chat", "pisică", "кошка")
    fewer = open_lexicon(pets(tmp_path), ("fr", "ru"), Folders(keys=("cat", "dog")))
    assert fewer.class_keys == ("cat", "dog")


def test_missing_names_are_counted_and_named(tmp_path: Path) -> None:
    spec = pets(tmp_path, cat={"fr": "chat"}, dog={}, horse={"fr": " ", "ru": "лошадь", "ro": "cal"})
    with pytest.raises(LexiconError) as raised:
        open_lexicon(spec, ("fr", "ro", "ru"), Folders())
    assert "names.json: 3 of 4 classes lack a name: cat in ro and ru, dog in fr and ro and ru, horse in fr;" in str(
        raised.value
    )
    assert "--corrections FILE" in str(raised.value)
    assert open_lexicon(spec, ("fr", "ro", "ru"), Folders(), drop_unnamed=True).class_keys == ("bird",)
    with pytest.raises(LexiconError, match=r"no names in sw; it has names in fr, ro, ru"):
        open_lexicon(spec, ("fr", "sw"), Folders(), drop_unnamed=True)
    with pytest.raises(LexiconError, match=r"none of the 1 classes .*names for bird, cat, dog and 1 more.* of yak"):
        open_lexicon(pets(tmp_path, yak={"fr": ""}), ("fr", "ru"), Folders(keys=("yak",)))


def test_images_without_a_table_need_names() -> None:
    with pytest.raises(LexiconError, match="no built-in names for these images; name them in a file"):
        open_lexicon("builtin", ("el", "en"), Folders())
    with pytest.raises(LexiconError, match="the names of imagenet: none of the 4 classes of the images has names"):
        open_lexicon("imagenet", ("el", "en"), Folders())


def test_a_built_in_table_says_which_languages_it_has() -> None:
    said = r"the names of emoji: no names in fr, ru; it has names in ar, el, .*--names file:names.json.*--names google"
    with pytest.raises(LexiconError, match=said):
        open_lexicon("emoji", ("fr", "ru"), EmojiPool(seed=0))


def test_a_named_table_is_that_table() -> None:
    pool = EmojiPool(seed=0)
    assert open_lexicon("emoji", ("el", "en"), pool) == open_lexicon("builtin", ("el", "en"), pool)
    lexicon = open_lexicon("imagenet", ("el", "en"), Folders(keys=("n01440764", "n02012849", "n99999999")))
    assert lexicon.class_keys == ("n01440764", "n02012849")
    assert [row[1] for row in lexicon.names] == ["tench", "crane"]


def test_corrections_take_the_place_of_names_and_add_to_them(tmp_path: Path) -> None:
    fixes = tmp_path / "fixes.tsv"
    fixes.write_text("class_key\tlanguage\tname\ncat\tfr\tminet\ndog\tro\tcățel\n", encoding="utf-8")
    spec = pets(tmp_path, dog={"fr": "chien", "ru": "собака"})
    lexicon = open_lexicon(spec, ("fr", "ro"), Folders(), corrections=str(fixes))
    assert lexicon.names[1:3] == (("minet", "pisică"), ("chien", "cățel"))
    fixes.write_text('{"the cat": {"synset_id": "cat", "fr": "matou"}, "dog": {"ro": "câine"}}', encoding="utf-8")
    lexicon = open_lexicon(spec, ("fr", "ro"), Folders(), corrections=str(fixes))
    assert lexicon.names[1:3] == (("matou", "pisică"), ("chien", "câine"))


def test_a_correction_of_no_class_is_an_error(tmp_path: Path) -> None:
    fixes = tmp_path / "fixes.tsv"
    fixes.write_text("class_key\tlanguage\tname\ncta\tfr\tminet\n", encoding="utf-8")
    with pytest.raises(LexiconError, match=r"fixes\.tsv: no such class in .*names\.json: cta; check the keys"):
        open_lexicon(pets(tmp_path), ("fr", "ro"), Folders(), corrections=str(fixes))


def test_a_correction_is_of_the_language_however_its_code_is_written() -> None:
    table = parse_names('{"cat": {"pt-BR": "gato", "zh-CN": "猫"}}', "x")
    fixed = table.corrected(parse_names('{"cat": {"pt": "gatinho", "zh-Hans": "猫咪"}}', "y"))
    assert fixed.names == {"cat": {"pt-BR": "gatinho", "zh": "猫咪"}}


def test_what_a_check_finds() -> None:
    text = (
        "class_key\tcategory\ten\tfr\tru\tja\treview\n"
        "1\t\tcat\tchat\tкошка\t猫\t\n"
        "2\t\tdog\tdog\tdog\t犬\t\n"  # English in French, another script in Russian
        "3\t\tlion\tlion\t\tTシャツ\t\n"  # missing, mixed
        "4\t\tCD\tCD-ROM\tCD\tCD\tja: people write it so; ru: so, too\n"
        "5\t\tChat \tfauve\tзверь\tライオン\t\n"
    )
    found = check_names(parse_names(text, "x"), ("en", "fr", "ja", "ru"))
    assert not found.fit
    assert found.missing == (("3", "ru"),)
    assert [(clash.name, clash.uses) for clash in found.clashes] == [
        ("cd", (("4", "en"), ("4", "ja"), ("4", "ru"))),
        ("chat", (("1", "fr"), ("5", "en"))),
        ("dog", (("2", "en"), ("2", "fr"), ("2", "ru"))),
        ("lion", (("3", "en"), ("3", "fr"))),
    ]
    assert [(one.class_key, one.language) for one in found.script] == [("2", "ru")]
    assert [(one.class_key, one.name) for one in found.mixed] == [("3", "Tシャツ")]
    assert [(one.class_key, one.language) for one in found.english] == [("2", "fr"), ("3", "fr")]
    assert check_names(parse_names(text, "x"), ("ja",)).fit
