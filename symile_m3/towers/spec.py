"""Tower specs: what `image`, `audio` and `text` may be set to, taken apart without loading anything.

    image   efficientnet-lite0, clip:MODEL@TAG
    audio   conv, conv:scratch, whisper:NAME
    text    ngram, clip:MODEL@TAG, xlmr:NAME

A pretrained tower ends in `:frozen` or `:train` where it is not to be as it is by default. NAME is a model of the
Hugging Face Hub or a folder; instead of MODEL@TAG, MODEL@FILE takes a checkpoint, and DIR a folder with open_clip's
configuration and weights, as does hf-hub:NAME on the Hub.
"""

from __future__ import annotations

from dataclasses import dataclass

from symile_m3.errors import UsageError

KNOWN = {
    "image": ("efficientnet-lite0", "clip:MODEL@TAG"),
    "audio": ("conv", "conv:scratch", "whisper:NAME"),
    "text": ("ngram", "clip:MODEL@TAG", "xlmr:NAME"),
}
MODES = ("frozen", "train")
_BY_DEFAULT = {("text", "xlmr"): "train"}  # its embeddings and first layer; all others are frozen


@dataclass(frozen=True, kw_only=True, slots=True)
class TowerSpec:
    """A tower, as a spec names it.

    Attributes:
        modality: image, audio or text.
        text: the spec as it was given.
        kind: what stands before the first colon.
        name: of the model, a file or a folder; empty for the towers that come with the package.
        trained: whether the objective trains the backbone too.
    """

    modality: str
    text: str
    kind: str
    name: str = ""
    trained: bool = False

    @property
    def pretrained(self) -> bool:
        """Whether the weights come from a file or the Hub."""
        return bool(self.name)

    def __str__(self) -> str:
        return f"{self.modality}={self.text}"


def parse_tower(modality: str, text: str) -> TowerSpec:
    """The tower of a modality that a spec names.

    Raises:
        UsageError: it names none.
    """
    if text in ("efficientnet-lite0", "conv", "ngram") and text in KNOWN[modality]:
        return TowerSpec(modality=modality, text=text, kind=text)
    if text == "conv:scratch" and modality == "audio":
        return TowerSpec(modality=modality, text=text, kind="conv", trained=True)
    kind, _, rest = text.partition(":")
    if f"{kind}:" not in [known[: len(kind) + 1] for known in KNOWN[modality]] or kind == "conv":
        raise UsageError(f"{modality}={text}: unknown {modality} tower; known: {', '.join(KNOWN[modality])}")
    name, colon, mode = rest.rpartition(":")
    if not colon or mode not in MODES:
        name, mode = rest, _BY_DEFAULT.get((modality, kind), "frozen")
    if not name:
        wanted = next(known for known in KNOWN[modality] if known.startswith(f"{kind}:"))
        raise UsageError(f"{modality}={text}: names no model; give {wanted}")
    return TowerSpec(modality=modality, text=text, kind=kind, name=name, trained=mode == "train")
