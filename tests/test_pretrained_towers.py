"""Pretrained towers, small and with random weights, through the real loaders: features against direct computation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import tiny_models
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from symile_m3.errors import TrainingError, UsageError
from symile_m3.model import Inputs, Model
from symile_m3.towers.clip import ClipImages, ClipText, ClipTokeniser, StoredPixels, TrainedClipVision
from symile_m3.towers.head import linear_head
from symile_m3.towers.spec import parse_tower
from symile_m3.towers.tower import BackboneTower, open_backbone
from symile_m3.towers.whisper import StoredMels, TrainedWhisper, WhisperClips
from symile_m3.towers.xlmr import XlmrText, XlmrTokeniser


@pytest.fixture(scope="module")
def clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_clip(tmp_path_factory.mktemp("models") / "clip")


@pytest.fixture(scope="module", params=[80, 128])
def whisper_folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_whisper(tmp_path_factory.mktemp("models") / "whisper", bands=request.param)


@pytest.fixture(scope="module")
def xlmr_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_models.save_xlmr(tmp_path_factory.mktemp("models") / "xlmr")


def pictures(count: int) -> list[NDArray[np.uint8]]:
    random = np.random.default_rng(0)
    sizes = random.integers(20, 70, (count, 2))
    return [random.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in sizes]


def clips(*seconds: float) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(1)
    return [(0.2 * random.standard_normal(round(16_000 * s))).astype(np.float32) for s in seconds]


# ---- specs


@pytest.mark.parametrize(
    ("modality", "text", "kind", "name", "trained"),
    [
        ("image", "efficientnet-lite0", "efficientnet-lite0", "", False),
        ("image", "clip:ViT-L-14@openai", "clip", "ViT-L-14@openai", False),
        ("image", "clip:ViT-L-14@openai:train", "clip", "ViT-L-14@openai", True),
        ("image", "clip:hf-hub:org/name:frozen", "clip", "hf-hub:org/name", False),
        ("audio", "conv:scratch", "conv", "", True),
        ("audio", "whisper:openai/whisper-large-v3", "whisper", "openai/whisper-large-v3", False),
        ("audio", "whisper:/some/folder:train", "whisper", "/some/folder", True),
        ("text", "ngram", "ngram", "", False),
        ("text", "xlmr:xlm-roberta-large", "xlmr", "xlm-roberta-large", True),
        ("text", "xlmr:xlm-roberta-large:frozen", "xlmr", "xlm-roberta-large", False),
        ("text", "clip:ViT-B-32@openai", "clip", "ViT-B-32@openai", False),
    ],
)
def test_specs_are_taken_apart(modality: str, text: str, kind: str, name: str, trained: bool) -> None:
    spec = parse_tower(modality, text)
    assert (spec.kind, spec.name, spec.trained) == (kind, name, trained)
    assert str(spec) == f"{modality}={text}"


@pytest.mark.parametrize(
    ("modality", "text", "says"),
    [
        ("image", "whisper:x", r"^image=whisper:x: unknown image tower; known: efficientnet-lite0, clip:MODEL@TAG$"),
        ("image", "ngram", "unknown image tower"),
        ("image", "efficientnet-lite0:train", "unknown image tower"),
        ("audio", "conv:train", "unknown audio tower"),
        ("audio", "conv:", "unknown audio tower"),
        ("audio", "whisper:", r"^audio=whisper:: names no model; give whisper:NAME$"),
        ("text", "xlmr:frozen", None),
        ("text", "xlmr::train", r"names no model; give xlmr:NAME"),
        ("text", "", "unknown text tower"),
    ],
)
def test_specs_of_no_tower_are_refused(modality: str, text: str, says: str | None) -> None:
    if says is None:
        assert parse_tower(modality, text).name == "frozen"  # a folder or model of that name
        return
    with pytest.raises(UsageError, match=says):
        parse_tower(modality, text)


# ---- CLIP


def reference_clip(folder: Path) -> tuple[Any, Any]:
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return model.eval(), transform


def pooled(model: Any, pixels: Tensor) -> Tensor:
    """The class token after the last norm, before the projection, step by step."""
    visual = model.visual
    x = visual.conv1(pixels).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1) + visual.positional_embedding
    return visual.ln_post(visual.transformer(visual.ln_pre(x)))[:, 0]


def test_clip_image_features_are_the_pooled_ones_before_the_projection(clip_folder: Path) -> None:
    spec = parse_tower("image", f"clip:{clip_folder}")
    backbone = ClipImages(spec)
    model, transform = reference_clip(clip_folder)
    images = pictures(5)
    pixels = torch.stack([transform(Image.fromarray(image)) for image in images])
    found = torch.cat([backbone.views(image, 1, 0, "id") for image in images])
    assert torch.equal(found, pixels)  # CLIP's own size, crop, mean and deviation
    features = backbone.features(found)
    assert features.shape == (5, 24)
    with torch.inference_mode():
        torch.testing.assert_close(features, pooled(model, pixels), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(features @ model.visual.proj, model.encode_image(pixels), atol=1e-5, rtol=1e-5)
    assert float(torch.pdist(features).min()) > 0.1


def test_augmented_views_are_normalised_alike(clip_folder: Path) -> None:
    backbone = ClipImages(parse_tower("image", f"clip:{clip_folder}"))
    grey = np.full((40, 40, 3), 128, dtype=np.uint8)
    views = backbone.views(grey, 3, 0, "id")
    assert views.shape == (3, 3, 32, 32)
    mean, std = torch.tensor(tiny_models.PIXELS["mean"]), torch.tensor(tiny_models.PIXELS["std"])
    for view in views[1:]:  # grey stays grey, a little lighter or darker
        colours = view.mean(dim=(1, 2)) * std + mean
        assert float(colours.max() - colours.min()) < 0.02
        assert 0.3 < float(colours.mean()) < 0.7


def test_a_trained_image_encoder_begins_as_the_frozen_one(clip_folder: Path) -> None:
    spec = parse_tower("image", f"clip:{clip_folder}:train")
    stored = StoredPixels(spec)
    frozen = ClipImages(spec)
    trained = TrainedClipVision(spec)
    images = pictures(40)
    pixels = torch.cat([stored.views(image, 1) for image in images])
    kept = stored.features(pixels)
    assert kept.dtype == torch.uint8
    with torch.inference_mode():
        torch.testing.assert_close(trained(kept.float()), frozen.features(pixels), atol=1e-4, rtol=1e-4)
    trained(kept[:4].float()).sum().backward()
    assert all(parameter.grad is not None for parameter in trained.parameters())


def test_a_checkpoint_file_goes_with_a_known_architecture(clip_folder: Path, tmp_path: Path) -> None:
    import json

    (tmp_path / "tiny-of-a-test.json").write_text(json.dumps(tiny_models.CLIP_CONFIG))
    open_clip.add_model_config(tmp_path)
    model, _ = reference_clip(clip_folder)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    backbone = ClipImages(parse_tower("image", f"clip:tiny-of-a-test@{tmp_path}/weights.pt"))
    pixels = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        torch.testing.assert_close(backbone.features(pixels), pooled(model, pixels), atol=1e-5, rtol=1e-5)
    with pytest.raises(TrainingError, match=r"weights.pt does not hold the weights of this model"):
        ClipImages(parse_tower("image", f"clip:RN50@{tmp_path}/weights.pt"))


def test_clip_text_features_are_those_of_the_model(clip_folder: Path) -> None:
    spec = parse_tower("text", f"clip:{clip_folder}")
    tokens = ClipTokeniser(spec)(["cat_dog", "bird"])
    model, _ = reference_clip(clip_folder)
    ids = open_clip.get_tokenizer(f"local-dir:{clip_folder}")(["cat dog", "bird"])
    assert torch.equal(tokens.ids_BT, ids)
    assert tokens.mask_BT.sum(dim=1).tolist() == [4, 3]
    with torch.inference_mode():
        tower = ClipText(spec).eval()
        torch.testing.assert_close(tower(tokens), model.encode_text(ids), atol=1e-5, rtol=1e-5)


def test_texts_that_clip_would_cut_off_are_refused(clip_folder: Path) -> None:
    tokeniser = ClipTokeniser(parse_tower("text", f"clip:{clip_folder}"))
    fitting = "_".join(["cat"] * 22)  # 24 with begin and end
    assert int(tokeniser([fitting]).mask_BT.sum()) == 24
    with pytest.raises(TrainingError, match=r"^text=clip:.*: a text takes more than the 24 tokens .*fewer --words"):
        tokeniser(["cat", fitting + "_dog"])


# ---- Whisper


def direct_whisper(folder: Path, samples: NDArray[np.float32]) -> tuple[Tensor, Tensor]:
    """The mean over the frames of one clip, alone, and over all frames."""
    model = transformers.WhisperModel.from_pretrained(folder).eval()
    extractor = transformers.WhisperFeatureExtractor.from_pretrained(folder)
    mels = extractor(samples, sampling_rate=16_000, return_tensors="pt")["input_features"]
    with torch.inference_mode():
        frames = model.encoder(mels).last_hidden_state[0]
    valid = math.ceil(math.ceil(len(samples) / 160) / 2)  # 10 ms a mel frame, two of them an encoder frame
    return frames[:valid].mean(dim=0), frames.mean(dim=0)


def test_whisper_features_are_means_over_the_frames_of_the_clip(whisper_folder: Path) -> None:
    backbone = WhisperClips(parse_tower("audio", f"whisper:{whisper_folder}"))
    samples = clips(1.0, 2.3456, 0.5, 6.0, 3.00001)
    features = backbone.features(samples)
    assert features.shape == (5, 16)
    for clip, found in zip(samples, features, strict=True):
        over_clip, over_all = direct_whisper(whisper_folder, clip)
        torch.testing.assert_close(found, over_clip, atol=1e-4, rtol=1e-4)
        if len(clip) < 6 * 16_000:
            assert float((found - over_all).abs().max()) > 1e-2


def test_of_a_clip_longer_than_whisper_hears_the_beginning_counts(whisper_folder: Path) -> None:
    backbone = WhisperClips(parse_tower("audio", f"whisper:{whisper_folder}"))
    (long,) = clips(7.0)
    torch.testing.assert_close(backbone.features([long]), backbone.features([long[: 6 * 16_000]]))


def test_a_trained_whisper_begins_as_the_frozen_one(whisper_folder: Path) -> None:
    spec = parse_tower("audio", f"whisper:{whisper_folder}:train")
    samples = clips(1.0, 2.3456, 0.5)
    mels, lengths = StoredMels(spec).features(samples)
    assert lengths.tolist() == [100, 235, 50]
    assert mels.shape[2] < 300  # not all of the padding
    mask = torch.arange(mels.shape[2]) < lengths[:, None]
    tower = TrainedWhisper(spec).eval()
    frozen = WhisperClips(spec)
    with torch.inference_mode():
        torch.testing.assert_close(tower(mels, mask), frozen.features(samples), atol=1e-4, rtol=1e-4)
    tower(mels, mask).sum().backward()
    names = {name for name, parameter in tower.named_parameters() if parameter.grad is None}
    assert names == {"net.embed_positions.weight"}


# ---- XLM-R

TEXTS = ["abc_def", "a", "gfedcba_abc_dog_a_b"]


def test_xlmr_features_are_means_over_the_tokens_of_the_first_layer(xlmr_folder: Path) -> None:
    spec = parse_tower("text", f"xlmr:{xlmr_folder}")
    tokens = XlmrTokeniser(spec)(TEXTS)
    assert len(set(tokens.mask_BT.sum(dim=1).tolist())) == 3
    tower = XlmrText(spec).eval()
    model = transformers.XLMRobertaModel.from_pretrained(xlmr_folder, add_pooling_layer=False).eval()
    tokenise = transformers.AutoTokenizer.from_pretrained(xlmr_folder)
    with torch.inference_mode():
        features = tower(tokens)
        for text, found in zip(TEXTS, features, strict=True):  # each alone, so without padding
            states = model(**tokenise(text, return_tensors="pt"), output_hidden_states=True).hidden_states
            torch.testing.assert_close(found, states[1][0].mean(dim=0), atol=1e-5, rtol=1e-5)


def test_of_xlmr_the_embeddings_and_the_first_layer_are_there_and_trained(xlmr_folder: Path) -> None:
    spec = parse_tower("text", f"xlmr:{xlmr_folder}")
    tower = BackboneTower(open_backbone(spec), torch.nn.Linear(16, 4), trained=spec.trained)
    assert len(tower.backbone.net.encoder.layer) == 1
    tower(XlmrTokeniser(spec)(TEXTS)).sum().backward()
    without = {name for name, parameter in tower.named_parameters() if parameter.grad is None}
    assert without == set()
    frozen = parse_tower("text", f"xlmr:{xlmr_folder}:frozen")
    tower = BackboneTower(open_backbone(frozen), torch.nn.Linear(16, 4), trained=frozen.trained)
    tower(XlmrTokeniser(spec)(TEXTS)).sum().backward()
    assert {name for name, parameter in tower.named_parameters() if parameter.grad is not None} == {
        "head.weight",
        "head.bias",
    }
    assert not tower.train().backbone.training


def test_a_missing_text_has_a_token_of_its_own(xlmr_folder: Path) -> None:
    spec = parse_tower("text", f"xlmr:{xlmr_folder}")
    tower = BackboneTower(open_backbone(spec), linear_head(16, 8), trained=True)
    model = Model({"image": torch.nn.Linear(4, 8), "text": tower}, "symile", dim=8).eval()
    tokeniser = XlmrTokeniser(spec)
    missing = torch.tensor([False, True, True])
    with torch.inference_mode():
        present = model.encode("text", Inputs(given={"text": (tokeniser(TEXTS),)}))
        found = model.encode("text", Inputs(given={"text": (tokeniser(TEXTS),)}, missing={"text": missing}))
        alone = model.encode("text", Inputs(given={"text": (tokeniser([""]),)}, missing={"text": missing[1:2]}))
    torch.testing.assert_close(found[0], present[0])
    torch.testing.assert_close(found[1], found[2])  # whatever the text was
    torch.testing.assert_close(found[1], alone[0], atol=1e-5, rtol=1e-5)
    assert float((found[1] - present[1]).abs().max()) > 1e-2
    words = model.towers["text"].backbone.net.embeddings.word_embeddings
    model.encode(
        "text", Inputs(given={"text": (tokeniser(TEXTS),)}, missing={"text": missing})
    ).square().mean().backward()
    assert bool(words.weight.grad[-1].any())
    assert not bool(words.weight.grad[:-1].any(dim=1)[tokeniser(["g"]).ids_BT[0, 1]])


def test_texts_longer_than_xlmr_takes_are_refused(xlmr_folder: Path) -> None:
    with pytest.raises(TrainingError, match=r"a text of \d+ tokens; this model takes 128; build with fewer --words"):
        XlmrTokeniser(parse_tower("text", f"xlmr:{xlmr_folder}"))(["a" * 200])
