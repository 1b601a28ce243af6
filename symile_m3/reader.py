"""A perfect user of the measured readings: what supervised classifiers of the same features reach in each direction.

An image is read as a probability of each class, a clip as one of each language, a text as the words that it holds.
The score of a triple is the sum, over the words of the text, of the probabilities of their class and their language:
a multilinear product over all (class, language) pairs, so retrieval is that of any other model. The query's own
probabilities are sharpened first: the classifiers are trained to be unsure, and what counts is what they think most
likely of the few that the text leaves open. Suffixes: B rows, Q queries, W words a text, K classes, L languages.
"""

from __future__ import annotations

import torch
from torch import Tensor

from symile_m3.exact import RETRIEVED
from symile_m3.objectives.scores import symile_scores
from symile_m3.questions import Questions
from symile_m3.ranking import Representations, first_right
from symile_m3.repstore import Gathered

_SHARPNESS = 8


class _Classes:
    def __init__(self, shares_NK: Tensor, languages: int) -> None:
        self._shares_NK, self._languages = shares_NK, languages

    def __len__(self) -> int:
        return len(self._shares_NK)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return self._shares_NK[rows].repeat_interleave(self._languages, dim=1)


class _Languages:
    def __init__(self, shares_NL: Tensor, classes: int) -> None:
        self._shares_NL, self._classes = shares_NL, classes

    def __len__(self) -> int:
        return len(self._shares_NL)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        return self._shares_NL[rows].repeat(1, self._classes)


class _Words:
    def __init__(self, words_QW: Tensor, count: int) -> None:
        self._words_QW, self._count = words_QW, count

    def __len__(self) -> int:
        return len(self._words_QW)

    def __getitem__(self, rows: Tensor, /) -> Tensor:
        words_BW = self._words_QW[rows]
        return torch.zeros(len(words_BW), self._count).scatter_(1, words_BW, 1.0)


def read_ranks(questions: Questions, image_shares_NK: Tensor, clip_shares_NL: Tensor) -> dict[str, Tensor]:
    """What is retrieved -> (Q,) ranks of the best right candidate, from the other two modalities.

    Args:
        image_shares_NK: probability of each class, of the candidate images.
        clip_shares_NL: probability of each language, of the candidate clips.
    """
    classes, languages = image_shares_NK.shape[1], clip_shares_NL.shape[1]
    candidates: dict[str, Representations] = {
        "image": _Classes(image_shares_NK, languages),
        "audio": _Languages(clip_shares_NL, classes),
        "text": _Words(questions.answers["text"].labels_NW, classes * languages),
    }
    queries: dict[str, Representations] = {
        "image": Gathered(_Classes(_sharpened(image_shares_NK), languages), questions.image_of_Q),
        "audio": Gathered(_Languages(_sharpened(clip_shares_NL), classes), questions.clip_of_Q),
        "text": candidates["text"],
    }
    return {
        retrieved: first_right(
            symile_scores,
            [queries[modality] for modality in given],
            candidates[retrieved],
            questions.answers[retrieved],
        )
        for retrieved, given in RETRIEVED.items()
    }


def _sharpened(shares_NC: Tensor) -> Tensor:
    return (shares_NC / shares_NC.amax(dim=1, keepdim=True)) ** _SHARPNESS
