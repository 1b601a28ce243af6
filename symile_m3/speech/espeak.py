"""The embedded clip pool: espeak-ng speaks sentences and phrases in every language, with many voices."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from symile_m3.errors import SourceError, UsageError
from symile_m3.languages import LANGUAGES
from symile_m3.media import Recipe, SpeechOptions
from symile_m3.speech.clip import encode_clip
from symile_m3.speech.engine import synthesize
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
            UsageError: a language is unknown.
        """
        for language in groups:
            if language not in LANGUAGES:
                raise UsageError(f"no speech in {language!r}; known: {', '.join(LANGUAGES)}")
        return [recipe for language in groups for recipe in self._of_language(language)]

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
                voice=LANGUAGES[recipe.group].espeak,
                variant=attributes["voice"].removeprefix("default"),
                rate_wpm=int(attributes["rate_wpm"]),
                pitch=int(attributes["pitch"]),
            )
            return encode_clip(samples, rate_hz, language=recipe.group, text=attributes["text"])
        except SourceError as error:
            raise SourceError(f"clip {recipe.name}: {error}") from error

    def _count(self, split: str) -> int:
        return {"train": self.train, "val": self.val, "test": self.test}[split]

    def _of_language(self, language: str) -> Iterator[Recipe]:
        """The recipes of one language."""
        texts = self._texts(language)
        made: set[tuple[str, ...]] = set()
        for split in SPLITS:
            voices: dict[str, Iterator[str]] = {}
            for sex in SEXES:
                variants = [voice.variant for voice in VOICES if (voice.split, voice.sex) == (split, sex)]
                voices[sex] = deck(variants, self.seed, "voice", language, split, sex)
            for i in range(self._count(split)):
                text = next(texts[split, KINDS[i % len(KINDS)]])
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

    def _texts(self, language: str) -> dict[tuple[str, str], Iterator[Text]]:
        """(split, kind) -> texts to say, endless for sentences, enough for phrases."""
        forbidden = self.forbidden.get(language, frozenset())
        names = NameFilter(language, forbidden)
        texts: dict[tuple[str, str], Iterator[Text]] = {}
        for split, members in sentences_by_split(self.seed, self.sentences).items():
            allowed = allowed_sentences(language, split, members, names)
            texts[split, "sentence"] = deck(allowed, self.seed, "sentence", language, split)
        needed = {split: sum(KINDS[i % len(KINDS)] == "phrase" for i in range(self._count(split))) for split in SPLITS}
        for split, chosen in phrases_by_split(language, self.seed, needed, forbidden).items():
            texts[split, "phrase"] = iter(chosen)
        return texts


def open_espeak(argument: str, options: SpeechOptions) -> EspeakPool:
    """The pool of `--speech espeak`.

    Raises:
        UsageError: it was given an argument, or a count is less than 1.
    """
    if argument:
        raise UsageError(f"--speech espeak:{argument}: espeak takes nothing after its name")
    train, val, test = options.clips
    return EspeakPool(train=train, val=val, test=test, seed=options.seed, forbidden=options.forbidden)
