"""Translating names of classes from English, and checking what comes back."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources

from symile_m3.errors import SourceError
from symile_m3.languages import full_tag
from symile_m3.letters import in_its_script
from symile_m3.lexicon.files import NameTable
from symile_m3.lexicon.names import normalise
from symile_m3.media import Translator
from symile_m3.progress import Progress

BATCH = 50  # names a call, so that what is done can be shown and kept
_ECHO_SHARE = 1 / 3  # of a language's names, unchanged: the translator gives English back
_ECHO_NAMES = 6  # with fewer names than this, that may be chance
_HINT = re.compile(r"\s*[(（][^()（）]*[)）]\s*$")


@dataclass(frozen=True, kw_only=True, slots=True)
class Translated:
    """The names of classes in one language, as a translator gave them.

    Attributes:
        names: class key -> name, of those that passed the checks.
        failed: class key -> what is wrong with what came back.
    """

    names: Mapping[str, str]
    failed: Mapping[str, str]


@cache
def _hints() -> dict[str, str]:
    """Class key -> the sense in which its English name is meant, of names that have several."""
    text = resources.files("symile_m3.lexicon").joinpath("hints.tsv").read_text(encoding="utf-8")
    return {row["class_key"]: row["hint"] for row in csv.DictReader(text.splitlines(), delimiter="\t")}


def english_names(labels: Mapping[str, str], table: NameTable | None = None) -> dict[str, str]:
    """Class key -> its English name as a translator is given it, with a hint to its sense where it has several.

    Args:
        labels: what a source calls its classes; of several synonyms the first is taken.
        table: names that are preferred where it has them; hints are known of the classes of built-in tables only.
    """
    named = table.in_languages(["en"]) if table else {}
    found = {key: " ".join(label.split(",")[0].replace("_", " ").split()) for key, label in labels.items()}
    found |= {key: names["en"] for key, names in named.items() if "en" in names}
    hints = _hints()
    return {key: f"{name} ({hints[key]})" if key in hints else name for key, name in found.items() if name}


def without_hint(name: str) -> str:
    """`crane (bird)` -> `crane`."""
    return _HINT.sub("", name).strip()


def translate_names(
    translator: Translator,
    english: Mapping[str, str],
    language: str,
    done: Callable[[Translated], None] = lambda _: None,
) -> Translated:
    """Names in a language, batch by batch.

    A name fails that is empty, or has no letter of the language's script. One that is spelt as in English passes, for
    many are; but a translator that returns a third of all names unchanged has not translated.

    Args:
        translator: asked once a batch; not at all for English.
        english: class key -> what to translate, from `english_names`.
        language: the code of the language.
        done: called after each batch with what came of it.

    Raises:
        SourceError: the translator cannot be reached, or does not translate.
    """
    keys = sorted(english)
    names: dict[str, str] = {}
    failed: dict[str, str] = {}
    same = 0
    for start in range(0, len(keys), BATCH):
        batch = keys[start : start + BATCH]
        asked = [english[key] for key in batch]
        is_english = full_tag(language) == full_tag("en")
        came, refused = (asked, {}) if is_english else _ask(translator, asked, language)
        good, bad = _checked(batch, came, language)
        bad |= {key: refused[english[key]] for key in bad if english[key] in refused}
        same += sum(normalise(good[key]) == normalise(without_hint(english[key])) for key in good)
        names |= good
        failed |= bad
        part = Translated(names=good, failed=bad)
        seen = len(names) + len(failed)
        if not is_english and seen >= _ECHO_NAMES and same > _ECHO_SHARE * seen:
            raise SourceError(
                f"the translator gave {same} of {seen} names in {language} back in English; it may not know the "
                "language, or answer without translating: try again later, or name them in a file"
            )
        done(part)
    return Translated(names=names, failed=failed)


def _ask(translator: Translator, asked: Sequence[str], language: str) -> tuple[Sequence[str], dict[str, str]]:
    """What came back, and why names were refused by a translator that checks its answers itself (`try_names`)."""
    if hasattr(translator, "try_names"):
        came, refusals = translator.try_names(asked, language)
        refused = {one.name: f"{one.why} ({one.answer!r} came back)" if one.answer else one.why for one in refusals}
    else:
        came, refused = translator.translate(asked, language), {}
    if len(came) != len(asked):
        raise SourceError(f"the translator gave {len(came)} names in {language} for {len(asked)}")
    return came, refused


def _checked(keys: Sequence[str], came: Sequence[str | None], language: str) -> tuple[dict[str, str], dict[str, str]]:
    """The names that pass, and what is wrong with the others."""
    good: dict[str, str] = {}
    bad: dict[str, str] = {}
    for key, answer in zip(keys, came, strict=True):
        name = " ".join(without_hint(answer or "").replace("_", " ").split())
        if not name:
            bad[key] = "nothing came back"
        elif not in_its_script(name, language):
            bad[key] = f"{name!r} came back, in another script"
        else:
            good[key] = name
    return good, bad


def fill_names(
    translator: Translator,
    english: Mapping[str, str],
    languages: Sequence[str],
    there: NameTable,
    progress: Progress,
    keep: Callable[[NameTable], None] = lambda _: None,
) -> tuple[NameTable, dict[str, Mapping[str, str]]]:
    """A table with the names that it lacks translated; those that it has are not asked for again.

    Args:
        translator: what translates.
        english: class key -> what to translate, from `english_names`.
        languages: codes of the languages.
        there: the names that there are, such as those of an interrupted translation.
        progress: shows the translation.
        keep: called with the whole table after each batch, to write it down.

    Returns:
        The table, and language -> class key -> what is wrong with the names that failed the checks of
        `translate_names` and so are still missing.

    Raises:
        SourceError: the translator cannot be reached, or does not translate.
    """
    names = {key: dict(row) for key, row in there.in_languages(languages).items() if key in english}
    names |= {key: {} for key in english if key not in names}
    table = replace(there, names=names)
    missing = {language: [key for key in sorted(english) if language not in names[key]] for language in languages}
    total = len(english) * len(languages)
    failed: dict[str, Mapping[str, str]] = {}
    with progress.task("Translating names", total, "names", done=total - sum(map(len, missing.values()))) as task:
        for language, keys in missing.items():

            def put(part: Translated, language: str = language) -> None:
                for key, name in part.names.items():
                    names[key][language] = name
                keep(table)
                task.advance(len(part.names) + len(part.failed))

            asked = {key: english[key] for key in keys}
            if keys:
                failed[language] = translate_names(translator, asked, language, put).failed
    return table, {language: why for language, why in failed.items() if why}
