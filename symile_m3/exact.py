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
