"""The speakers: the variants of espeak-ng that the espeak clip pool uses, and the split each belongs to.

A variant changes formants, pitch, breath and timing of whatever language is spoken, so every speaker
speaks every language. Speakers that sound alike (one author's drafts, one synthesis method) are in one
split, so that the test speakers are unheard ones. Left out of espeak-ng 1.52's variants:

- `Reed`, `caleb`: not deterministic; they read memory that was never set;
- `whisper`, `whisperf`: whispered;
- `fast`: the same samples as the language's own voice;
- `Alicia`, `klatt`, `klatt2`, `Marco`, `RicishayMax`: hard to understand. Unheard, their language was
  recognised in 50 to 75% of clips by a small network that reached 94% over all variants;
- `anikaRobot`, `announcer`, `Demonic`, `RicishayMax2`, `RicishayMax3`, `robosoft` to `robosoft8`,
  `UniRobot`: echo or ring of a machine;
- `zac`: pitched more than an octave above the other men.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Sex = Literal["female", "male"]
SEXES: tuple[Sex, ...] = ("female", "male")


@dataclass(frozen=True, kw_only=True, slots=True)
class Voice:
    """One speaker.

    Attributes:
        variant: espeak-ng's name of it; empty for the language's own voice.
        sex: as heard; its pitch is about 170 to 260 Hz for women, 70 to 145 Hz for men.
        split: train, val or test, in every language.
    """

    variant: str
    sex: Sex
    split: str


_SPEAKERS: dict[str, dict[Sex, tuple[str, ...]]] = {
    "train": {
        "female": ("Andrea", "anika", "f2", "f3", "f5", "shelby", "steph", "steph2", "steph3"),
        "male": (
            *("", "Alex", "boris", "croak", "grandpa", "m1", "m2", "m3", "m5", "m6", "m8", "max", "victor"),
            *("john", "Mr serious", "norbert", "pablo", "pedro", "antonio", "Tweaky"),
            *("adam", "benjamin", "david", "edward", "edward2", "mike2"),
            *("klatt3", "klatt4", "klatt5", "klatt6"),
            *("Diogo", "Henrique", "Hugo", "michel", "miguel"),
            *("iven", "iven2", "iven3", "iven4"),
            *("Andy", "AnxiousAndy", "Denis", "ian", "Lee", "paul", "quincy", "sandro", "Storm"),
        ),
    },
    "val": {
        "female": ("Annie", "grandma"),
        "male": ("ed", "Gene", "Gene2", "m4", "Mike", "travis"),
    },
    "test": {
        "female": ("aunty", "belinda", "f1", "f4", "linda"),
        "male": (
            *("gustave", "marcelo", "Mario", "Michael", "m7", "rob", "robert"),
            *("Jacky", "kaukovalta", "Nguyen"),
        ),
    },
}

VOICES: tuple[Voice, ...] = tuple(
    Voice(variant=variant, sex=sex, split=split)
    for split, by_sex in _SPEAKERS.items()
    for sex, variants in by_sex.items()
    for variant in variants
)
