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

from symile_m3.assembly import Shapes, load_best, model_of, pretrained_weights, tokeniser_of
from symile_m3.encode import open_encoder
from symile_m3.errors import TrainingError, UsageError
from symile_m3.features import log_mels, net_features
from symile_m3.media import ImageOptions
from symile_m3.model import Inputs, Model
from symile_m3.objectives import get_objective
from symile_m3.portable import Portable, weights_file
from symile_m3.rawmedia import ClipItem, ImageItem, as_list, is_clip, is_image, read_clip, read_image
from symile_m3.recipe import TrainConfig
from symile_m3.towers import audio as audio_tower
from symile_m3.towers.device import device as usual_device
from symile_m3.trained import Given, Trained, in_parts


class TrainedModel(Trained):
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
        super().__init__(
            directory,
            model,
            get_objective(portable.objective, config.negatives),
            standins=portable.standins,
            origins=portable.origins,
            learned=frozenset(name for name, p in config.missing.items() if p),
        )
        self.config = config
        self.dataset = portable.dataset
        self.vocabulary = portable.words
        self.languages = tuple(portable.dataset.get("languages", ()))
        self._portable = portable
        self._image_options = ImageOptions(
            size_px=int(portable.dataset.get("image_px", 224)), crop=str(portable.dataset.get("crop", "centre"))
        )
        self._tokeniser = tokeniser_of(portable.words, config)
        self._known = frozenset(portable.words)

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
        for part in in_parts(as_list(images, is_image)):
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
                for part in in_parts(as_list(clips, is_clip))
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
        for part in in_parts(as_list(texts, lambda given: isinstance(given, str))):
            self._check_words(part)
            found.append(self._encode("text", Inputs(given={"text": (self._tokeniser(part),)})))
        return self._joined(found)

    def _encode_raw(self, modality: str, given: Any) -> Tensor:
        encoders = {"image": self.encode_images, "audio": self.encode_audio, "text": self.encode_texts}
        rep_ND: Tensor = encoders[modality](given)
        return rep_ND

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
        return self._scores({"image": image, "audio": audio, "text": text}, retrieve)

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
        return self._rank({"image": image, "audio": audio, "text": text}, retrieve, k)

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
