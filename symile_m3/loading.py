"""A trained model in use: encoders of raw images, recordings and texts, and their scores, without the dataset.

Suffixes: N media, Q queries, K best candidates, D dimensions.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from symile_m3.accumulation import moved
from symile_m3.assembly import Shapes, load_best, model_of, pretrained_weights, tokeniser_of
from symile_m3.encode import open_encoder
from symile_m3.errors import TrainingError, UsageError
from symile_m3.features import log_mels, net_features
from symile_m3.media import ImageOptions
from symile_m3.model import MODALITIES, Inputs, Model
from symile_m3.objectives import best_candidates, get_objective
from symile_m3.objectives.scores import Scores
from symile_m3.portable import Portable, weights_file
from symile_m3.rawmedia import ClipItem, ImageItem, as_list, is_clip, is_image, read_clip, read_image
from symile_m3.recipe import TrainConfig
from symile_m3.standins import MEAN_UNIT
from symile_m3.towers import audio as audio_tower
from symile_m3.towers.device import device as usual_device

_BATCH = 32

Given = Tensor | Any
"""Of one modality: raw media, one or several, or representations (N, D) as the encoders return them."""


class TrainedModel:
    """A model that was trained, and what it takes to use it.

    Made by `symile_m3.load`. Representations are float32 and on the CPU, whatever the towers run on.

    Attributes:
        directory: its files.
        config: the recipe it was trained by.
        dataset: facts of the dataset it was trained on.
        objective: its name.
        standins: modality -> what takes its place in a query that lacks it.
        languages: codes of the languages that it was trained on.
        vocabulary: the words that it knows; empty for a pretrained text tower, which takes any.
    """

    def __init__(self, directory: Path, config: TrainConfig, portable: Portable, model: Model) -> None:
        self.directory = directory
        self.config = config
        self.dataset = portable.dataset
        self.objective = portable.objective
        self.vocabulary = portable.words
        self.languages = tuple(portable.dataset.get("languages", ()))
        self._objective = get_objective(portable.objective, config.negatives)
        # As in evaluation: the cosine of a pair needs no third modality; a product does.
        alone = "" if any(config.missing.values()) else self._objective.alone
        self._in_pairs = bool(alone)
        self.standins: Mapping[str, str] = dict.fromkeys(MODALITIES, alone) if alone else dict(portable.origins)
        self._portable = portable
        self._model = model.eval()
        self._device = next(model.parameters()).device
        self._image_options = ImageOptions(
            size_px=int(portable.dataset.get("image_px", 224)), crop=str(portable.dataset.get("crop", "centre"))
        )
        self._tokeniser = tokeniser_of(portable.words, config)
        self._known = frozenset(portable.words)

    @property
    def dim(self) -> int:
        """D of the representations."""
        return self.config.model.dim

    def __repr__(self) -> str:
        return f"TrainedModel({str(self.directory)!r}, objective={self.objective!r}, dim={self.dim})"

    @torch.no_grad()
    def encode_images(self, images: ImageItem | Sequence[ImageItem]) -> Tensor:
        """Representations (N, D) of images.

        They are prepared as a build prepares files: upright, transparency on white, the middle square unless the
        dataset keeps whole images.

        Args:
            images: files, images of Pillow's, or arrays (H, W, 3) of bytes.

        Raises:
            SourceError: one is no image, or cannot be read.
            SymileM3Error: the weights of the image tower are not to be had.
        """
        found = []
        for part in _parts(as_list(images, is_image)):
            views = [self._images.views(read_image(item, self._image_options), 1) for item in part]
            features = self._kept(self._images.features(torch.cat(views)))
            found.append(self._encode("image", Inputs(given={"image": (features,)})))
        return self._joined(found)

    @torch.no_grad()
    def encode_audio(self, clips: ClipItem | Sequence[ClipItem]) -> Tensor:
        """Representations (N, D) of recordings.

        They are prepared as those of a dataset: resampled to 16 kHz, long silence at the ends left out, at one level.

        Args:
            clips: files (FLAC, WAV, Ogg or MP3), or pairs of a waveform (T,) in [-1, 1] and its sample rate in Hz. Of
                more than 30 s the beginning is taken.

        Raises:
            SourceError: one is no audio, is silent or too short, or cannot be read.
            SymileM3Error: the weights of the audio tower are not to be had.
        """
        return self._joined(
            [
                self._encode("audio", self._clip_inputs([read_clip(item) for item in part]))
                for part in _parts(as_list(clips, is_clip))
            ]
        )

    @torch.no_grad()
    def encode_texts(self, texts: str | Sequence[str]) -> Tensor:
        """Representations (N, D) of texts: words joined by "_", as in a dataset. A single word is a text too.

        Raises:
            UsageError: a word is not in the vocabulary, and the model has learned nothing of such words.
            TrainingError: a text is longer than the text tower takes.
        """
        found = []
        for part in _parts(as_list(texts, lambda given: isinstance(given, str))):
            self._check_words(part)
            found.append(self._encode("text", Inputs(given={"text": (self._tokeniser(part),)})))
        return self._joined(found)

    def encode(self, modality: str, given: Given) -> Tensor:
        """Representations (N, D) of raw media of a modality; representations are returned as they are.

        Raises:
            UsageError: an unknown modality, or representations of another width.
        """
        if modality not in MODALITIES:
            raise UsageError(f"{modality!r}: no modality; known: {', '.join(MODALITIES)}")
        if isinstance(given, Tensor):
            if given.ndim != 2 or given.shape[1] != self.dim:
                raise UsageError(f"{modality}: representations are (N, {self.dim}), not {tuple(given.shape)}")
            return given.detach().float().cpu()
        encoders = {"image": self.encode_images, "audio": self.encode_audio, "text": self.encode_texts}
        rep_ND: Tensor = encoders[modality](given)
        return rep_ND

    @torch.no_grad()
    def scores(
        self,
        *,
        image: Given | None = None,
        audio: Given | None = None,
        text: Given | None = None,
        retrieve: str = "image",
    ) -> Tensor:
        """Scores (Q, N) of the candidates for each query; the higher, the better they go together.

        Candidates are what is given of the modality `retrieve`; queries are what is given of the others, of which one
        may be left out: `standins` says what takes its place. One query medium goes with any number of the other.

        Args:
            image, audio, text: raw media, one or several, or representations (N, D).
            retrieve: the modality of the candidates.

        Raises:
            UsageError: no candidates, no query, or numbers of queries that do not go together.
            SourceError: a medium cannot be used.
        """
        scores, queries, candidates_ND = self._asked({"image": image, "audio": audio, "text": text}, retrieve)
        return scores(queries, candidates_ND).cpu()

    @torch.no_grad()
    def rank(
        self,
        *,
        image: Given | None = None,
        audio: Given | None = None,
        text: Given | None = None,
        retrieve: str = "image",
        k: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The best k candidates of each query, in memory that does not grow with the number of candidates.

        Args:
            image, audio, text, retrieve: as for `scores`.
            k: how many; all by default.

        Returns:
            Their scores (Q, K), best first, and which of the candidates they are (Q, K), from 0.

        Raises:
            UsageError: as for `scores`, or k is less than 1.
            SourceError: a medium cannot be used.
        """
        scores, queries, candidates_ND = self._asked({"image": image, "audio": audio, "text": text}, retrieve)
        if k is not None and k < 1:
            raise UsageError(f"k = {k}: at least 1")
        most = len(candidates_ND)
        best_QK, rows_QK = best_candidates(scores, queries, candidates_ND, min(k or most, most))
        return best_QK.cpu(), rows_QK.cpu()

    def _asked(self, given: Mapping[str, Given | None], retrieve: str) -> tuple[Scores, list[Tensor], Tensor]:
        """What scores them, and the representations of the queries, one (Q, D) a modality, and of the candidates."""
        if retrieve not in MODALITIES:
            raise UsageError(f"retrieve={retrieve!r}: no modality; known: {', '.join(MODALITIES)}")
        others = [name for name in MODALITIES if name != retrieve]
        if given[retrieve] is None:
            raise UsageError(f"no candidates: give {retrieve}=, or another modality to retrieve=")
        if all(given[name] is None for name in others):
            raise UsageError(f"no query: give {' or '.join(f'{name}=' for name in others)}, or both")
        found = {name: self.encode(name, value) for name, value in given.items() if value is not None}
        if not len(found[retrieve]):
            raise UsageError(f"no candidates: {retrieve}= is empty")
        count = max(len(found[name]) for name in others if name in found)
        queries: dict[str, Tensor] = {}
        for name in others:
            if name not in found and self._in_pairs:
                continue
            rep_QD = self._objective.term(found[name]) if name in found else self._standin(name)[None]
            if len(rep_QD) not in (1, count):
                numbers = " and ".join(f"{len(found[name])} of {name}" for name in others)
                raise UsageError(f"queries of {numbers}: give as many of each, or one of one of them")
            queries[name] = rep_QD.expand(count, -1).to(self._device)
        scores = self._model.scores(self._objective, retrieve, tuple(queries), terms=True)
        return scores, list(queries.values()), found[retrieve].to(self._device)

    def _standin(self, modality: str) -> Tensor:
        """(D,) as it enters the scores; a mean of normalised ones is not normalised again."""
        rep_D = self._portable.standins[modality]
        return rep_D if self._portable.origins[modality] == MEAN_UNIT else self._objective.term(rep_D)

    def _encode(self, modality: str, inputs: Inputs) -> Tensor:
        rep_ND = self._model.encode(modality, moved(inputs, self._device))
        return rep_ND.float().cpu()

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts) if parts else torch.empty(0, self.dim)

    def _kept(self, features: Tensor) -> Tensor:
        """As features are kept for training: in half precision unless the recipe says otherwise."""
        half = self.config.features.precision == "half" and features.is_floating_point()
        return (features.half() if half else features).float()

    @cached_property
    def _images(self) -> Any:
        return open_encoder(self.config.features.image_tower)

    @cached_property
    def _clips(self) -> Any:
        """What gives features of clips: Whisper's encoder, or the net that was fitted to the dataset's clips."""
        if self.config.features.audio_tower.kind != "conv":
            return open_encoder(self.config.features.audio_tower)
        net = audio_tower.ConvNet()
        try:
            net.load_state_dict(dict(self._portable.audio_net or {}))
        except RuntimeError as error:
            raise TrainingError(f"{self.directory}: the audio net is another; export it again") from error
        return net.eval()

    def _clip_inputs(self, clips: list[np.ndarray[Any, np.dtype[np.float32]]]) -> Inputs:
        spec = self.config.features.audio_tower
        if spec.kind == "conv":
            mels_NMT, lengths = log_mels(clips)
            mels_NMT, mask_NT = audio_tower.normalise(mels_NMT, torch.tensor(lengths))
            if spec.trained:
                return Inputs(given={"audio": (self._kept(mels_NMT), mask_NT.bool())})
            return Inputs(given={"audio": (self._kept(net_features(self._clips, mels_NMT, mask_NT)),)})
        found = self._clips.features(clips)
        if isinstance(found, tuple):
            mels_NMT, lengths_N = found
            mask_NT = torch.arange(mels_NMT.shape[2]) < lengths_N[:, None]
            return Inputs(given={"audio": (self._kept(mels_NMT), mask_NT)})
        return Inputs(given={"audio": (self._kept(found),)})

    def _check_words(self, texts: Sequence[str]) -> None:
        if not all(isinstance(text, str) and text for text in texts):
            raise UsageError("a text is empty, or no string")
        if not self._known or self.config.model.text_ngrams:
            return
        for text in texts:
            for word in text.split("_"):
                if word not in self._known:
                    near = difflib.get_close_matches(word.casefold(), self.vocabulary, n=3)
                    raise UsageError(
                        f"text {text!r}: the model knows no word {word!r}"
                        + (f"; near: {', '.join(near)}" if near else "; `vocabulary` lists those it knows")
                        + "; words are joined by _"
                    )


def _parts(items: Sequence[Any]) -> list[Sequence[Any]]:
    return [items[start : start + _BATCH] for start in range(0, len(items), _BATCH)]


def open_model(directory: Path, config: TrainConfig, weights: Mapping[str, str], portable: Portable) -> TrainedModel:
    """The model whose files have been read.

    Args:
        weights: modality -> fingerprint of the weights its tower began with.

    Raises:
        TrainingError: the towers have other weights now, or those of the model do not fit.
        SymileM3Error: the weights of a pretrained tower are not to be had.
    """
    if weights and dict(weights) != pretrained_weights(config):
        raise TrainingError(
            f"{directory}: its {' and '.join(weights)} towers began with other weights than are found now under the "
            "same names; put the former back"
        )
    objective = get_objective(portable.objective, config.negatives)
    shapes = Shapes(
        image_features=portable.image_features, audio_features=portable.audio_features, words=portable.words
    )
    model = model_of(shapes, objective, config)
    path = weights_file(directory)
    load_best(model, path)
    return TrainedModel(directory, config, portable, model.to(usual_device()))
