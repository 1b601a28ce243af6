"""Clips by Google's text-to-speech, through gTTS: each text is asked for once and then kept on disk.

gTTS asks the service that speaks on Google Translate's pages, a request for every hundred characters. What it
says is the same as espeak-ng does: sentences and phrases that name no class (see `symile_m3.speech.texts`).
"""

from __future__ import annotations

import importlib
import importlib.metadata
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from symile_m3.errors import MissingDependencyError, ServiceError, SourceError, UsageError
from symile_m3.languages import LANGUAGES, full_tag
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.speech.clip import MAX_DURATION_S, encode_clip
from symile_m3.speech.forbidden import NameFilter
from symile_m3.speech.mp3 import decode_mp3
from symile_m3.speech.texts import KINDS, SPLITS, Text, allowed_sentences, deck, phrases_by_split, sentences_by_split
from symile_m3.web import BadAnswerError, Service

LICENCE = "Google's terms of service; whether synthesised speech may be passed on is unclear"

_OTHER_CODES = {"zh": "zh-CN", "zh-Hans": "zh-CN", "zh-Hant": "zh-TW", "he": "iw", "jv": "jw", "fil": "tl", "nb": "no"}
"""What gTTS calls languages that it knows by another code."""

# Google's domains whose speech differs for a language, by split: an accent is a voice, so where there are enough
# of them none is in two splits. (ca speaks English as com does: both train.)
_ACCENTS: dict[str, dict[str, tuple[str, ...]]] = {
    "en": {"train": ("com", "co.uk", "com.au", "co.in", "ca"), "val": ("ie",), "test": ("co.za", "com.ng")},
    "es": {"train": ("com",), "val": ("com.mx",), "test": ("es",)},
    "fr": dict.fromkeys(SPLITS, ("fr", "ca")),
    "pt": dict.fromkeys(SPLITS, ("com.br", "pt")),
    "pt-BR": dict.fromkeys(SPLITS, ("com.br",)),
}
_ONE_ACCENT = ("com",)
# Nobody speaks more letters a second; characters that stand for syllables or words count four times.
_LETTERS_PER_S = 40.0
_WIDE = 4
_SILENT_PEAK = 1e-3


@dataclass(frozen=True, kw_only=True)
class GttsPool:
    """Clips by Google's text-to-speech, of the same make-up in every language that has sentences.

    No text is in two splits and none is spoken twice: every sentence once, in turn with phrases, and then
    phrases alone. Languages without sentences have phrases only. English and Spanish have accents, of
    which none is in two splits; French and Portuguese have two, in all splits; other languages have one voice.

    Attributes:
        train, val, test: clips a language.
        seed: of all draws.
        forbidden: language -> names that no clip of it may speak.
        service: what is asked, with the cache of its answers.

    Raises:
        UsageError: a count is less than 1.
        MissingDependencyError: gTTS is not installed.
    """

    train: int = 480
    val: int = 40
    test: int = 60
    seed: int = 0
    forbidden: Mapping[str, frozenset[str]] = field(default_factory=dict)
    service: Service = field(default_factory=lambda: gtts_service())

    def __post_init__(self) -> None:
        for split in SPLITS:
            if self._count(split) < 1:
                raise UsageError(f"gtts clips: {split} must be at least 1, not {self._count(split)}")

    @property
    def suffix(self) -> str:
        """`flac`."""
        return "flac"

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """The clips of these languages: by language as given, then train, val, test. Nothing is asked for.

        Raises:
            SourceError: the forbidden names leave too little to say, or the service does not speak a language.
        """
        spoken = _client("gtts.lang").tts_langs()
        silent = [language for language in groups if not engine_language(language)]
        if silent:
            raise SourceError(
                f"gtts does not speak {', '.join(silent)}; it speaks {', '.join(sorted(spoken))} "
                "(leave these out of --langs, or give recordings: --speech recordings:DIR)"
            )
        return [recipe for language in groups for recipe in self._of_language(language)]

    def make(self, recipe: Recipe) -> bytes:
        """The clip as FLAC: 16 kHz, mono, 16 bit. The service is asked for what is not kept yet.

        Raises:
            SourceError: no usable answer, or a clip that is too short; the message names the recipe and text.
            ServiceError: the service has stopped answering.
        """
        attributes = recipe.attributes
        try:
            samples, rate_hz = self._spoken(attributes["text"], attributes["engine_language"], attributes["accent"])
        except ServiceError:
            raise
        except SourceError as error:
            raise SourceError(
                f"clip {recipe.name}: {error}; everything else is kept: run the same command again"
            ) from error
        try:
            return encode_clip(samples, rate_hz, language=recipe.group, text=attributes["text"])
        except SourceError as error:
            raise SourceError(f"clip {recipe.name}: {error}") from error

    def _count(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def _of_language(self, language: str) -> Iterator[Recipe]:
        """The recipes of one language."""
        texts = self._texts(language)
        for split in SPLITS:
            accents = deck(_ACCENTS.get(language, {}).get(split, _ONE_ACCENT), self.seed, "accent", language, split)
            for i, text in enumerate(texts[split]):
                yield Recipe(
                    name=f"{language}-{split}-{i:05d}",
                    group=language,
                    split=split,
                    source="gtts",
                    licence=LICENCE,
                    synthetic=True,
                    attributes={
                        "text": text.written,
                        "sentence": text.id,
                        "engine_language": engine_language(language),
                        "accent": next(accents),
                    },
                )

    def _texts(self, language: str) -> dict[str, list[Text]]:
        """What is said in each split, in order."""
        forbidden = self.forbidden.get(language, frozenset())
        names = NameFilter(language, forbidden)
        sentences: dict[str, list[Text]] = {split: [] for split in SPLITS}
        if language in LANGUAGES:
            for split, members in sentences_by_split(self.seed).items():
                allowed = allowed_sentences(language, split, members, names)
                shuffled = deck(allowed, self.seed, "sentence", language, split)
                wanted = sum(KINDS[i % len(KINDS)] == "sentence" for i in range(self._count(split)))
                sentences[split] = [next(shuffled) for _ in range(min(wanted, len(allowed)))]
        needed = {split: self._count(split) - len(sentences[split]) for split in SPLITS}
        chosen = phrases_by_split(language, self.seed, needed, forbidden)
        return {split: _in_turn(sentences[split], chosen[split]) for split in SPLITS}

    def _spoken(self, text: str, language: str, accent: str) -> tuple[NDArray[np.float32], int]:
        """The samples of a text, as far as a clip can hold them, and their rate in hertz."""
        client = _client("gtts.tts")
        pieces: list[NDArray[np.float32]] = []
        rate_hz = 0
        parts: list[str] = client.gTTS(text, lang=language, tld=accent, lang_check=False)._tokenize(text)
        for part in parts:
            question = {"language": language, "accent": accent, "text": part}
            mp3 = self.service.ask(question, client, lambda part=part: _request(client, part, language, accent))  # type: ignore[misc]
            samples, rate_hz = decode_mp3(mp3)
            pieces.append(samples)
            if sum(map(len, pieces)) > (MAX_DURATION_S + 1) * rate_hz:
                break  # the rest would be cut off
        if not pieces:
            raise SourceError(f"nothing to say in {text!r}")
        return np.concatenate(pieces), rate_hz


def _in_turn(sentences: Sequence[Text], phrases: Sequence[Text]) -> list[Text]:
    """Sentences and phrases in turn, as long as there are both."""
    left = {"sentence": list(sentences)[::-1], "phrase": list(phrases)[::-1]}
    texts: list[Text] = []
    while any(left.values()):
        kind = KINDS[len(texts) % len(KINDS)]
        texts.append((left[kind] or left["phrase" if kind == "sentence" else "sentence"]).pop())
    return texts


def _request(client: Any, part: str, language: str, accent: str) -> bytes:
    """The MP3 of at most a hundred characters, checked.

    Raises:
        BadAnswerError: there is none, or it is not whole.
    """
    # Split and prepared already; a language that gTTS does not know has been refused.
    speech = client.gTTS(part, lang=language, tld=accent, lang_check=False, pre_processor_funcs=[])
    try:
        mp3 = b"".join(speech.stream())
    except client.gTTSError as error:
        raise BadAnswerError("an answer without speech in it") from error
    except ValueError as error:  # not base64, not UTF-8
        raise BadAnswerError(f"an answer that cannot be decoded: {error}") from error
    if not mp3:
        raise BadAnswerError("an answer without speech in it")
    try:
        samples, rate_hz = decode_mp3(mp3)
    except ValueError as error:
        raise BadAnswerError(str(error)) from error
    duration_s, least_s = len(samples) / rate_hz, least_duration_s(part)
    if duration_s < least_s:
        raise BadAnswerError(f"{duration_s:.2f} s of speech for {part!r}, which takes {least_s:.2f} s at least")
    if float(np.abs(samples).max(initial=0.0)) < _SILENT_PEAK:
        raise BadAnswerError(f"silence for {part!r}")
    return mp3


def engine_language(language: str) -> str:
    """What gTTS calls a language, `pt` for `pt-BR`; empty where it does not speak it."""
    spoken = _client("gtts.lang").tts_langs()
    code = _OTHER_CODES.get(language, language)
    if code in spoken:
        return code
    return next((known for known in sorted(spoken) if full_tag(known) == full_tag(language)), "")


def least_duration_s(text: str) -> float:
    """How long a text takes at least, in seconds, however fast it is spoken."""
    letters = sum(
        _WIDE if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
        if unicodedata.category(character)[0] in "LN"
    )
    return max(0.2, letters / _LETTERS_PER_S)


def gtts_service() -> Service:
    """Google's text-to-speech, with the user's cache and the manners that the environment sets.

    Raises:
        MissingDependencyError: gTTS is not installed.
        UsageError: the environment sets something that is not a number.
    """
    _client("gtts")
    return Service(
        name="gtts",
        title="Google's text-to-speech (gTTS)",
        version=f"gTTS {importlib.metadata.version('gTTS')}",
    )


def _client(module: str) -> Any:
    """A module of gTTS, imported when first used."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise MissingDependencyError("gTTS is not installed; install it: pip install 'gTTS>=2.5.4'") from error


def open_gtts(argument: str, options: SpeechOptions) -> GttsPool:
    """The pool of `--speech gtts`.

    Raises:
        UsageError: it was given an argument, or a count is less than 1.
        MissingDependencyError: gTTS is not installed.
    """
    if argument:
        raise UsageError(f"--speech gtts:{argument}: gtts takes nothing after its name")
    train, val, test = options.clips
    return GttsPool(train=train, val=val, test=test, seed=options.seed, forbidden=options.forbidden)
