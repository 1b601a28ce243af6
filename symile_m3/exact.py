"""What the generative process is exactly worth: information in nats, and the best accuracies there can be.

The process is that of Symile-M3 (Saporta et al. 2024, section 5.1): see `symile_m3.plan`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from symile_m3.plan import Plan

INFORMATION = (  # field, what it is, its formula for disjoint text
    ("class_language", "I(class; language)", "0"),
    ("text_class", "I(text; class)", "ln K - ln w"),
    ("text_language", "I(text; language)", "ln L - ln w"),
    ("class_language_given_text", "I(class; language given text)", "ln w"),
    ("total_correlation", "TC(class, language, text)", "ln K + ln L - ln w"),
)
BEST_ACCURACIES = (
    ("class_from_text", "the class from text", "1/w"),
    ("class_from_speech", "the class from speech", "1/K"),
    ("class_from_both", "the class from text and speech", "1"),
    ("language_from_text", "the language from text", "1/w"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactValues:
    """Exact values of a dataset; None where none is known.

    Attributes:
        class_language, text_class, text_language: mutual information, in nats.
        class_language_given_text: I(class; language | text), in nats.
        total_correlation: of class, language and text, in nats.
        class_from_text, class_from_speech, class_from_both: the best accuracy for the class, from 0 to 1.
        language_from_text: the best accuracy for the language, from 0 to 1.
    """

    class_language: float
    text_class: float | None
    text_language: float | None
    class_language_given_text: float | None
    total_correlation: float | None
    class_from_text: float | None
    class_from_speech: float
    class_from_both: float
    language_from_text: float | None

    @classmethod
    def of_plan(cls, plan: Plan) -> ExactValues:
        """The values of a dataset with K classes, L languages and w words a text.

        The words of an `overlap` text may repeat classes and languages, so what the text alone says has no
        simple exact value; what needs none is known there too.
        """
        K, L, w = len(plan.lexicon), len(plan.lexicon.languages), plan.config.words
        known = plan.config.text == "disjoint"
        return cls(
            class_language=0.0,
            text_class=math.log(K) - math.log(w) if known else None,
            text_language=math.log(L) - math.log(w) if known else None,
            class_language_given_text=math.log(w) if known else None,
            total_correlation=math.log(K) + math.log(L) - math.log(w) if known else None,
            class_from_text=1 / w if known else None,
            class_from_speech=1 / K,
            class_from_both=1.0,
            language_from_text=1 / w if known else None,
        )


RETRIEVED = {  # what is retrieved -> the modalities of the query
    "image": ("audio", "text"),
    "audio": ("image", "text"),
    "text": ("image", "audio"),
}
RIGHT = {  # what is retrieved -> which candidates are right
    "image": "images of the class",
    "audio": "clips of the language",
    "text": "texts that hold the word for the class in the language",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ExactRetrieval:
    """The best accuracies of retrieving one modality, known of the process; None where there is no simple value.

    A retrieved image is right if it is of the sample's class, a clip if it is of the sample's language, a text if it
    holds the sample's target word, whether as its own target or as a distractor.

    Attributes:
        retrieved: image, audio or text.
        chance: the probability that a candidate drawn from the process is right.
        best: modalities given, joined by "+" -> the best accuracy where the candidates say nothing of the query.
    """

    retrieved: str
    chance: float
    best: dict[str, float | None]

    @classmethod
    def of_plan(cls, plan: Plan, retrieved: str) -> ExactRetrieval:
        """The values of a dataset with K classes, L languages and w words a text.

        From the image alone a text that holds the class has it in one of L languages, all equally likely; from audio
        alone a text has at most one word of the language, of one of K classes. Any one word is in a `disjoint` text
        with probability w / (K L). An `overlap` text whose target is in another language has w - 1 words drawn from
        (L - 1) K. There a text may repeat a class, so that image and text together need not tell the language.
        """
        K, L, w = len(plan.lexicon), len(plan.lexicon.languages), plan.config.words
        known = plan.config.text == "disjoint"
        if retrieved == "image":
            best: dict[str, float | None] = {"audio+text": 1.0, "text": 1 / w if known else None, "audio": 1 / K}
            return cls(retrieved=retrieved, chance=1 / K, best=best)
        if retrieved == "audio":
            best = {"image+text": 1.0 if known else None, "text": 1 / w if known else None, "image": 1 / L}
            return cls(retrieved=retrieved, chance=1 / L, best=best)
        if retrieved == "text":
            distractor = 1 - (1 - 1 / ((L - 1) * K)) ** (w - 1)
            chance = w / (K * L) if known else 1 / (K * L) + (L - 1) / L * distractor
            best = {"image+audio": 1.0, "image": 1 / L if known else None, "audio": 1 / K if known else None}
            return cls(retrieved=retrieved, chance=chance, best=best)
        raise ValueError(f"{retrieved!r}: one of {', '.join(RETRIEVED)} can be retrieved")
