"""The embedded clip pool: espeak-ng speaks sentences and phrases in every language, with many voices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from symile_m3.errors import SourceError, UsageError
from symile_m3.languages import LANGUAGES, find_language
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.speech.clip import encode_clip
from symile_m3.speech.engine import phonemes, synthesize
from symile_m3.speech.forbidden import NameFilter
from symile_m3.speech.texts import (
    KINDS,
    SPLITS,
    Text,
    allowed_sentences,
    deck,
    draws,
    phrases_by_split,
    sentences_by_split,
)
from symile_m3.speech.voices import SEXES, VOICES

_RATES_WPM = (120, 160)  # from, to; faster, the shortest sentences would last less than a second
_PITCHES = (30, 70)
_MAX_DRAWS = 1000  # of rate and pitch for a clip that no other clip of its language equals

# What is heard is the text: espeak-ng's licence (GPL-3.0) covers the program, not what it says. The
# sentences are this project's; the phrases are CLDR's data, under the Unicode licence.
_LICENCES = {"sentence": "MIT", "phrase": "Unicode-3.0"}


@dataclass(frozen=True, kw_only=True)
class EspeakPool:
    """Clips by espeak-ng, of the same make-up in every language.

    The sentences are there in ten languages. Where one is asked for that is not of those, every language says phrases
    only, so that the make-up stays the same.

    No voice and no text is in two splits: voices and sentences are divided the same way for all
    languages, and phrases are all different. Voice, rate and pitch are drawn in the same way for every
    language, half of the clips with women's voices, so that nothing but the language tells the language.

    Attributes:
        train, val, test: clips a language.
        seed: of all draws.
        forbidden: language -> names that no clip of it may speak, such as those of the classes.
        sentences: a table of one's own, in the form of the shipped `sentences.tsv`, to use in its place.

    Raises:
        UsageError: a count is less than 1.
    """

    train: int = 480
    val: int = 40
    test: int = 60
    seed: int = 0
    forbidden: Mapping[str, frozenset[str]] = field(default_factory=dict)
    sentences: Path | None = None

    def __post_init__(self) -> None:
        for split in SPLITS:
            if self._count(split) < 1:
                raise UsageError(f"espeak clips: {split} must be at least 1, not {self._count(split)}")

    @property
    def suffix(self) -> str:
        """`flac`."""
        return "flac"

    def recipes(self, groups: Sequence[str]) -> list[Recipe]:
        """The clips of these languages: by language as given, then train, val, test.

        Raises:
            SourceError: the forbidden names leave too little to say, or the counts ask for more clips than
                there are different ones.
            UsageError: a language is unknown, or espeak-ng has no voice for it.
        """
        for language in groups:
            if not find_language(language).espeak:
                name = find_language(language).name
                raise UsageError(
                    f"--speech espeak: espeak-ng has no voice for {language} ({name}); leave it out, or give "
                    "recordings: --speech recordings:DIR or common-voice:DIR"
                )
        kinds = KINDS if set(groups) <= set(LANGUAGES) else ("phrase",)
        return [recipe for language in groups for recipe in self._of_language(language, kinds)]

    def make(self, recipe: Recipe) -> bytes:
        """The clip as FLAC: 16 kHz, mono, 16 bit.

        Raises:
            MissingDependencyError: `espeakng-loader` is not installed.
            SourceError: silent, clipped or too short; the message names the recipe, language and text.
        """
        attributes = recipe.attributes
        try:
            samples, rate_hz = synthesize(
                attributes["spoken"],
                voice=find_language(recipe.group).espeak,
                variant=attributes["voice"].removeprefix("default"),
                rate_wpm=int(attributes["rate_wpm"]),
                pitch=int(attributes["pitch"]),
            )
            return encode_clip(samples, rate_hz, language=recipe.group, text=attributes["text"])
        except SourceError as error:
            raise SourceError(f"clip {recipe.name}: {error}") from error

    def _count(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def _of_language(self, language: str, kinds: Sequence[str]) -> Iterator[Recipe]:
        """The recipes of one language, whose clips say texts of these kinds in turn."""
        texts = self._texts(language, kinds)
        made: set[tuple[str, ...]] = set()
        for split in SPLITS:
            voices: dict[str, Iterator[str]] = {}
            for sex in SEXES:
                variants = [voice.variant for voice in VOICES if (voice.split, voice.sex) == (split, sex)]
                voices[sex] = deck(variants, self.seed, "voice", language, split, sex)
            for i in range(self._count(split)):
                text = next(texts[split, kinds[i % len(kinds)]])
                voice = next(voices[SEXES[i % 2]]) or "default"
                rng = draws(self.seed, "prosody", language, split, i)
                for _ in range(_MAX_DRAWS):
                    rate_wpm = str(rng.integers(*_RATES_WPM, endpoint=True))
                    pitch = str(rng.integers(*_PITCHES, endpoint=True))
                    what = (text.spoken, voice, rate_wpm, pitch)
                    if what not in made:
                        break
                else:
                    raise SourceError(f"espeak clips: no more different ones in {language!r}: ask for fewer")
                made.add(what)
                yield Recipe(
                    name=f"{language}-{split}-{i:05d}",
                    group=language,
                    split=split,
                    source="espeak",
                    licence=_LICENCES[text.kind],
                    synthetic=True,
                    attributes={
                        "text": text.written,
                        "spoken": text.spoken,
                        "sentence": text.id,
                        "voice": voice,
                        "rate_wpm": rate_wpm,
                        "pitch": pitch,
                    },
                )

    def _texts(self, language: str, kinds: Sequence[str]) -> dict[tuple[str, str], Iterator[Text]]:
        """(split, kind) -> texts to say, endless for sentences, enough for phrases."""
        forbidden = self.forbidden.get(language, frozenset())
        names = NameFilter(language, forbidden)
        texts: dict[tuple[str, str], Iterator[Text]] = {}
        for split, members in sentences_by_split(self.seed, self.sentences).items() if "sentence" in kinds else ():
            allowed = allowed_sentences(language, split, members, names)
            texts[split, "sentence"] = deck(allowed, self.seed, "sentence", language, split)
        needed = {split: sum(kinds[i % len(kinds)] == "phrase" for i in range(self._count(split))) for split in SPLITS}
        chosen = phrases_by_split(language, self.seed, needed, forbidden, partial(_stays_in, language))
        for split, members_of in chosen.items():
            texts[split, "phrase"] = iter(members_of)
        return texts


def _stays_in(language: str, text: str) -> bool:
    """Whether espeak-ng reads no word as English; of the ten languages the phrases are known to be read well."""
    return language in LANGUAGES or "(" not in phonemes(text, voice=find_language(language).espeak)


def open_espeak(argument: str, options: SpeechOptions) -> EspeakPool:
    """The pool of `--speech espeak`.

    Raises:
        UsageError: it was given an argument, or a count is less than 1.
    """
    if argument:
        raise UsageError(f"--speech espeak:{argument}: espeak takes nothing after its name")
    train, val, test = options.clips
    return EspeakPool(train=train, val=val, test=test, seed=options.seed, forbidden=options.forbidden)
