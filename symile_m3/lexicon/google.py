"""Names of classes by Google Translate, through deep-translator: each is asked for once and then kept on disk.

What comes back is checked, as the service may give the English name as it was, another script, half a page of
HTML, or the same word for two things. What fails is reported and never used; a file of corrections names it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from symile_m3.errors import LexiconError, MissingDependencyError, ServiceError, SourceError, UsageError
from symile_m3.letters import in_script, is_letter, script_of
from symile_m3.lexicon.names import normalise
from symile_m3.web import BadAnswerError, Service

_OTHER_CODES = {
    **{"zh": "zh-CN", "zh-Hans": "zh-CN", "zh-Hant": "zh-TW", "he": "iw", "jv": "jw", "fil": "tl", "nb": "no"},
    **{"mni": "mni-Mtei", "pt-BR": "pt", "kok": "gom"},
}
"""What Google Translate calls languages that it knows by another code."""

_OPEN, _CLOSE = "(（\\[［【〔〈《「『﹙", ")）\\]］】〕〉》」』﹚"
_HINT = re.compile(r"^(?P<name>[^()]*[^()\s])\s*\((?P<hint>[^()]+)\)$")
_GLOSSED = re.compile(f"^(?P<name>[^{_OPEN}{_CLOSE}]+?)\\s*[{_OPEN}][^{_OPEN}{_CLOSE}]*[{_CLOSE}]$")
_BRACKET = re.compile(f"[{_OPEN}{_CLOSE}]")
_MARKUP = re.compile(r"<\s*[A-Za-z/!]|&(#\d+|#x[0-9a-fA-F]+|[A-Za-z]+);")
_ERROR_PAGE = re.compile(r"^Error \d{3}\b")  # comes with status 200, where the translation should be
_FOREIGN_LETTERS = 3  # together, that a name may hold beside its own: DVD, X
_LISTED = 20  # of what failed, in a message


@dataclass(frozen=True, kw_only=True, slots=True)
class Refused:
    """A translation that is not used.

    Attributes:
        name: the English name that was asked for, with its hint.
        language: into which.
        answer: what came back; empty for nothing.
        why: in a few words.
    """

    name: str
    language: str
    answer: str
    why: str

    def __str__(self) -> str:
        return f"{self.name} in {self.language}: {self.why}" + (f" ({self.answer!r})" if self.answer else "")


@dataclass(frozen=True, kw_only=True)
class GoogleNames:
    """Names translated from English by Google Translate.

    A name that stands for several things carries a hint in parentheses: `crane (bird)`. It is translated as
    a whole, and the brackets with the hint are taken off the answer; an answer without them is
    refused, as nothing tells which of its words are the name.

    Attributes:
        service: what is asked, with the cache of its answers.
    """

    service: Service = field(default_factory=lambda: google_service())

    def translate(self, names: Sequence[str], language: str) -> list[str]:
        """The names in a language, in their order; all of them pass the checks of `try_names`.

        Raises:
            LexiconError: some do not; the message lists which, and why.
            SourceError: the service does not know the language, or CLDR its script.
            ServiceError: the service has stopped answering.
        """
        found, refused = self.try_names(names, language)
        if refused:
            raise LexiconError(refusal(refused, len(names)))
        return found

    def try_names(
        self, names: Sequence[str], language: str, done: Callable[[], None] | None = None
    ) -> tuple[list[str], list[Refused]]:
        """The names in a language, in their order, empty where refused; and those that were.

        Refused is what is empty, English as it was, HTML, in another script, too long for a name, with `_`
        or brackets in it, or the same for two of the names.

        Args:
            names: in English, each with a hint to its sense in parentheses where it has several.
            language: a code of `symile_m3.languages`, or any that the service and CLDR know.
            done: called after each name.

        Raises:
            SourceError: the service does not know the language, or CLDR its script.
            ServiceError: the service has stopped answering.
        """
        code = _code(language)
        script = script_of(language)
        found: list[str] = []
        refused: dict[int, Refused] = {}
        for i, name in enumerate(names):
            answer, why = "", ""
            if code == "en":
                found.append(plain_name(name))
            else:
                try:
                    answer = self._answer(name, code)
                    translated, why = checked_name(name, answer, script)
                    found.append(translated)
                except ServiceError:
                    raise
                except SourceError as error:
                    found.append("")
                    why = str(error)
            if why:
                refused[i] = Refused(name=name, language=language, answer=answer, why=why)
            if done is not None:
                done()
        for i, others in _same(found).items():
            if i not in refused:
                why = "the same as for " + ", ".join(names[other] for other in others)
                refused[i] = Refused(name=names[i], language=language, answer=found[i], why=why)
        return [name if i not in refused else "" for i, name in enumerate(found)], [refused[i] for i in sorted(refused)]

    def _answer(self, name: str, code: str) -> str:
        """What the service makes of an English name."""
        client = _client("deep_translator.google")
        question = {"language": code, "accent": "", "text": name}
        return self.service.ask(question, client, lambda: _request(client, name, code)).decode()


def plain_name(name: str) -> str:
    """An English name without its hint: `crane (bird)` -> `crane`."""
    match = _HINT.match(name.strip())
    return match["name"] if match else name.strip()


def checked_name(name: str, answer: str, script: str) -> tuple[str, str]:
    """The name that an answer holds, without hint, and why it is refused; one of the two is empty.

    Args:
        name: the English name that was asked for, with its hint.
        answer: what came back.
        script: ISO 15924 code of the language's script.
    """
    plain = plain_name(name)
    found = " ".join(answer.split())
    if found.endswith((".", "。", "।")) and not plain.endswith("."):
        found = found[:-1].rstrip()
    if not found:
        return "", "empty"
    if _MARKUP.search(found):
        return "", "HTML, not a name"
    if plain != name.strip():
        match = _GLOSSED.match(found)
        if match is None:
            return "", "the hint cannot be told from the name"
        found = match["name"]
    elif _BRACKET.search(found) and not _BRACKET.search(plain):
        return "", "brackets in it"
    if normalise(found) in (normalise(plain), normalise(name)):
        return "", "left in English"
    if "_" in found:
        return "", "'_' in it, which separates the words of a text"
    if len(found) > 30 + 4 * len(plain):
        return "", "too long for a name"
    return (found, "") if _written_in(found, script) else ("", f"not in the script of the language ({script})")


def refusal(refused: Sequence[Refused], count: int) -> str:
    """One line on names that were refused: how many, which, why, and what to do.

    Args:
        refused: all of them.
        count: how many names were asked for.
    """
    listed = "; ".join(map(str, refused[:_LISTED]))
    more = f"; and {len(refused) - _LISTED} more" if len(refused) > _LISTED else ""
    return (
        f"Google Translate gave no usable name for {len(refused)} of {count}: {listed}{more}. "
        "Name these in a file of corrections"
    )


def _written_in(name: str, script: str) -> bool:
    """Whether a name has letters of a script, and hardly any of others."""
    own = run = longest = 0
    for character in name:
        if not is_letter(character):
            run = 0 if character.isspace() else run
        elif in_script(character, script):
            own, run = own + 1, 0
        else:
            run += 1
            longest = max(longest, run)
    return own > 0 and longest <= (0 if script == "Latn" else _FOREIGN_LETTERS)


def _same(found: Sequence[str]) -> dict[int, list[int]]:
    """Which names are like others: their places -> the places of those."""
    places: dict[str, list[int]] = {}
    for i, name in enumerate(found):
        if name:
            places.setdefault(normalise(name), []).append(i)
    return {i: [other for other in same if other != i] for same in places.values() if len(same) > 1 for i in same}


def _code(language: str) -> str:
    """What Google Translate calls a language."""
    known = set(_client("deep_translator.constants").GOOGLE_LANGUAGES_TO_CODES.values())
    code = _OTHER_CODES.get(language, language)
    if code not in known:
        raise SourceError(
            f"Google Translate does not know language {language!r}; it knows {', '.join(sorted(known))} "
            "(give its names in a file: --names file:names.json)"
        )
    return code


def _request(client: Any, name: str, code: str) -> bytes:
    """The text that the service answers with.

    Raises:
        BadAnswerError: there is none.
    """
    not_found = _client("deep_translator.exceptions").TranslationNotFound
    try:
        answer = client.GoogleTranslator(source="en", target=code).translate(name)
    except not_found as error:
        raise BadAnswerError("a page without a translation in it") from error
    if not (answer or "").strip():
        raise BadAnswerError("an empty translation")
    if _ERROR_PAGE.match(answer):
        raise BadAnswerError(" ".join(answer.split())[:60])
    return str(answer).encode()


def google_service() -> Service:
    """Google Translate, with the user's cache and the manners that the environment sets.

    Raises:
        MissingDependencyError: deep-translator is not installed.
        UsageError: the environment sets something that is not a number.
    """
    _client("deep_translator.google")
    return Service(
        name="google",
        title="Google Translate",
        version=f"deep-translator {importlib.metadata.version('deep-translator')}",
    )


def _client(module: str) -> Any:
    """A module of deep-translator, imported when first used."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError(
            "deep-translator is not installed; install it: pip install 'deep-translator>=1.11.4'"
        ) from error


def open_google(argument: str = "") -> GoogleNames:
    """The translator of `--names google`.

    Raises:
        UsageError: it was given an argument.
        MissingDependencyError: deep-translator is not installed.
    """
    if argument:
        raise UsageError(f"--names google:{argument}: google takes nothing after its name")
    return GoogleNames()
