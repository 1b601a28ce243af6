"""Texts as the tokens of a pretrained text encoder. Suffixes: B texts, T tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from symile_m3.towers.text import TokenisedTexts


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokens:
    """Tokenised texts.

    Attributes:
        ids_BT: of the tokens; what they are behind a text's end does not matter.
        mask_BT: True for the tokens of the text.
    """

    ids_BT: Tensor
    mask_BT: Tensor

    def __len__(self) -> int:
        """B."""
        return len(self.ids_BT)


class TextTokeniser(Protocol):
    """What prepares texts for a text tower; picklable."""

    def __call__(self, texts: Sequence[str]) -> TokenisedTexts | Tokens:
        """The texts as the tower takes them."""
        ...
