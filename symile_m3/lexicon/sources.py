"""Where the names of classes come from: what `--names` says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from symile_m3.errors import LexiconError, UsageError
from symile_m3.lexicon.checks import is_english
from symile_m3.lexicon.files import NameTable, builtin_names, read_names
from symile_m3.lexicon.names import TABLES, Lexicon
from symile_m3.lexicon.translate import Translated, english_names, translate_names, without_hint
from symile_m3.media import ImagePool, Translator
from symile_m3.progress import NoProgress, Progress
from symile_m3.sources import added, find_source, split_spec

TRANSLATORS = {
    "google": "symile_m3.lexicon.google:open_google",
}
"""Name -> function of (argument,) that opens the translator."""

_kept: dict[tuple[str, tuple[tuple[str, str], ...], str], Translated] = {}  # a build asks for its names twice


def open_lexicon(
    spec: str,
    languages: Sequence[str],
    pool: ImagePool,
    *,
    corrections: str = "",
    drop_unnamed: bool = False,
    progress: Progress | None = None,
) -> Lexicon:
    """The names of a pool's classes in these languages.

    Of a built-in table those classes are taken that both it and the pool have. Names from a file or a translator are
    wanted for every class of the pool (but of the emoji only for those in the file); where some are missing, that is an
    error unless `drop_unnamed`.

    Args:
        spec: what `--names` says: `builtin`, the name of a built-in table, `file:PATH`, or a translator.
        languages: language codes.
        pool: the images, whose class keys the names go by.
        corrections: a file of names that take the place of those; empty for none.
        drop_unnamed: leave out the classes that lack a name.
        progress: shows the translation.

    Raises:
        UsageError: an unknown spec.
        LexiconError: the names do not fit the images, some are missing, or a file is malformed.
        SourceError: the translator cannot be opened or reached.
    """
    progress = progress or NoProgress()
    name, _ = split_spec(spec)
    table = pool.table if spec == "builtin" else name
    fixes = read_names(Path(corrections)) if corrections else None
    wanted = sorted(pool.classes())
    if spec == "builtin" and not table:
        raise LexiconError(
            "--names builtin: no built-in names for these images; name them in a file (--names file:names.json), or "
            "have them translated (--names google)"
        )
    if table in TABLES:
        names = read_source(table)
        wanted = sorted(set(names.names) & set(wanted)) or wanted
        left_out = len(pool.classes()) - len(wanted)
        if left_out and table != "emoji":  # most emoji are left out on purpose
            progress.say(f"{left_out} classes of the images are not in {names.where}, and left out")
    elif name == "file":
        names = read_source(spec)
        if pool.table == "emoji":  # there are thousands, and no file is meant to name them all
            wanted = sorted(set(names.names) & set(wanted)) or wanted
    else:
        open_translator(spec)  # before anything is made ready for it
        known = builtin_names(pool.table) if pool.table else None
        labels = pool.labels()
        wanted = sorted((set(known.names) & set(wanted)) if known else wanted)
        english = english_names({key: labels.get(key, key) for key in wanted}, known)
        names = translated(spec, english, languages, progress)
    if fixes is not None:
        names = names.corrected(fixes, pool.classes())
    return names.lexicon(languages, wanted, drop_unnamed=drop_unnamed)


def read_source(spec: str) -> NameTable:
    """The names of a built-in table, or of a file (`file:PATH`, or the path alone).

    Raises:
        UsageError: it is neither.
        LexiconError: the file cannot be read or is malformed.
    """
    name, argument = split_spec(spec)
    if spec in TABLES:
        return builtin_names(spec)
    if name == "file" and not argument:
        raise UsageError("--names file: needs the path of a file: --names file:names.json")
    if name == "file" or Path(spec).suffix in (".json", ".tsv"):
        return read_names(Path(argument if name == "file" else spec))
    raise UsageError(f"{spec}: neither a built-in table ({', '.join(TABLES)}) nor a file (file:PATH, *.json, *.tsv)")


def open_translator(spec: str) -> Translator:
    """The translator that a spec names.

    Raises:
        UsageError: there is none of that name.
        SourceError: it cannot be opened.
    """
    name, _ = split_spec(spec)
    if name not in TRANSLATORS and name not in added("translators"):
        known = ["builtin", *TABLES, "file:PATH", *TRANSLATORS, *sorted(added("translators"))]
        raise UsageError(f"--names {spec}: unknown source of names; known: {', '.join(known)}")
    factory, argument = find_source("translators", spec, TRANSLATORS)
    translator: Translator = factory(argument)
    return translator


def translated(spec: str, english: Mapping[str, str], languages: Sequence[str], progress: Progress) -> NameTable:
    """English names in these languages, by a translator; names that fail its checks are left out, and said.

    Raises:
        UsageError, SourceError: see `open_translator` and `translate_names`.
    """
    names: dict[str, dict[str, str]] = {key: {} for key in english}
    failed: dict[str, str] = {}
    question = (spec, tuple(sorted(english.items())))
    new = [language for language in languages if (*question, language) not in _kept]
    if new:
        translator = open_translator(spec)
        with progress.task("Translating names", len(english) * len(new), "names") as task:
            for language in new:
                _kept[(*question, language)] = translate_names(
                    translator, english, language, lambda part: task.advance(len(part.names) + len(part.failed))
                )
    for language in languages:
        result = _kept[(*question, language)]
        for key, name in result.names.items():
            names[key][language] = name
        for key, why in result.failed.items():
            failed.setdefault(key, why)
        if result.failed:
            key, why = next(iter(result.failed.items()))
            progress.say(f"{spec}: no name in {language} for {len(result.failed)} classes, such as {key}: {why}")
        same = [name for key, name in result.names.items() if is_english(name, without_hint(english[key]), language)]
        if same:
            progress.say(f"{spec}: {len(same)} names in {language} are spelt as in English: {', '.join(same[:5])}")
    return NameTable(where=f"--names {spec}", names=names, failed=failed)
