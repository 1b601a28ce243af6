"""The towers: what goes in and out of each, and that neither padding nor batches show in it."""

from __future__ import annotations

import math
import zlib

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from symile_m3.errors import UsageError
from symile_m3.towers import audio as audio_tower
from symile_m3.towers.audio import (
    MELS,
    SAMPLE_RATE_HZ,
    AudioHead,
    ConvNet,
    ScratchAudioTower,
    augment,
    fit_languages,
    frames,
    log_mel,
    mel_filters,
    normalise,
)
from symile_m3.towers.image import ImageHead, open_image_backbone, pixel_views
from symile_m3.towers.text import BagSum, TextTower, Tokeniser


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def sines(frequencies_hz: list[float], seconds: float = 0.5) -> Tensor:
    time_S = torch.arange(int(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    return 0.3 * torch.sin(2 * math.pi * torch.tensor(frequencies_hz)[:, None] * time_S)


def mel(hz: float) -> float:
    return 2595 * math.log10(1 + hz / 700)


# ---- audio


def test_each_filter_is_a_triangle_on_the_mel_scale() -> None:
    filters = mel_filters()
    assert filters.shape == (MELS, audio_tower.FFT // 2 + 1)
    assert bool((filters >= 0).all())
    assert float(filters.max()) <= 1
    assert bool((filters.sum(dim=1) > 0).all())
    peaks = filters.argmax(dim=1)
    assert bool((peaks.diff() >= 0).all())
    assert not bool(filters[:, 0].any())  # nothing at 0 Hz, nor at the end of the spectrum
    assert not bool(filters[:, -1].any())


@pytest.mark.parametrize("hz", [300.0, 700.0, 1500.0, 3000.0, 6000.0])
def test_a_sine_peaks_in_its_band(hz: float) -> None:
    step = (mel(audio_tower.MAX_HZ) - mel(audio_tower.MIN_HZ)) / (MELS + 1)
    expected = (mel(hz) - mel(audio_tower.MIN_HZ)) / step - 1  # band m is centred on edge m + 1
    energies = log_mel(sines([hz]))[0, :, 5:-5].mean(dim=1)
    assert abs(int(energies.argmax()) - expected) <= 1


@settings(deadline=None)
@given(st.integers(600, 5000))
def test_log_mels_have_one_frame_a_hop(samples: int) -> None:
    mels = log_mel(torch.zeros(2, samples))
    assert mels.shape == (2, MELS, frames(samples))
    torch.testing.assert_close(mels, torch.full_like(mels, math.log(1e-6)))


@pytest.mark.parametrize("samples", [6400, 6480, 7000])  # the last frame lies half behind the end, or less
def test_zeros_behind_a_clip_change_no_frame_of_it(samples: int) -> None:
    clip = 0.1 * torch.randn(1, samples, generator=generator())
    alone, padded = log_mel(clip), log_mel(F.pad(clip, (0, 5000)))
    torch.testing.assert_close(padded[:, :, : alone.shape[2]], alone)


def test_normalise_takes_the_mean_of_the_valid_frames() -> None:
    mels = torch.randn(3, MELS, 40, generator=generator())
    lengths = torch.tensor([40, 25, 1])
    normalised, mask = normalise(mels, lengths)
    assert mask.sum(dim=1).tolist() == [40, 25, 1]
    for i, length in enumerate(lengths.tolist()):
        valid = mels[i, :, :length]
        torch.testing.assert_close(normalised[i, :, :length], (valid - valid.mean(dim=1, keepdim=True)) / 3)
        assert not bool(normalised[i, :, length:].any())


@pytest.mark.parametrize("length", [37, 50, 100])
def test_padding_does_not_show_in_the_features(length: int) -> None:
    net = ConvNet()
    for norm in net.norms:  # as after training: what is zero does not stay zero
        assert isinstance(norm, torch.nn.BatchNorm1d)
        torch.nn.init.uniform_(norm.bias, 0.2, 0.5, generator=generator(1))
        assert norm.running_mean is not None
        torch.nn.init.normal_(norm.running_mean, generator=generator(2))
    net.eval()
    mels = torch.randn(1, MELS, length, generator=generator())
    lengths = torch.tensor([length])
    with torch.inference_mode():
        alone = net(*normalise(mels, lengths))
        padded = net(*normalise(F.pad(mels, (0, 63), value=-13.8), lengths))
        other = net(*normalise(mels.flip(2), lengths))
    assert alone.shape == (1, net.features)
    torch.testing.assert_close(padded, alone, atol=1e-4, rtol=0)
    assert float((other - alone).abs().max()) > 1e-2


def test_augmented_crops_stay_within_the_clip() -> None:
    """Every frame of the clips is 1, all behind their end is nan: none of that may be taken."""
    lengths = torch.tensor([100, 116, 130, 180])
    mask = (torch.arange(200) < lengths[:, None]).float()
    mels = torch.ones(4, MELS, 200).masked_fill(mask[:, None] == 0, torch.nan)
    for seed in range(50):
        crops, valid = augment(mels[1:], mask[1:], generator(seed))
        assert crops.shape == (3, MELS, 100)
        assert bool((valid == 1).all())
        assert bool(crops.isfinite().all())
    # A clip shorter than a crop is taken whole, the rest is marked as padding.
    crops, valid = augment(mels[:1].nan_to_num(0.0), mask[:1], generator(0), crop=150)
    assert 85 <= int(valid.sum()) <= 119
    assert not bool((crops * (1 - valid[:, None])).any())


def test_augmentation_is_drawn_from_its_generator() -> None:
    mels, mask = normalise(torch.randn(4, MELS, 150, generator=generator()), torch.tensor([150, 140, 130, 120]))
    first, again, other = (augment(mels, mask, generator(seed))[0] for seed in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 16 / 3 <= float((first[0] == 0).all(dim=1).sum()) <= 16  # one or two masks of 8 bands
    assert float((first[0] == 0).all(dim=0).sum()) >= 15  # a mask of 15 frames


def two_languages(clips: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Clips of noise and a tone: low in one language, high in the other."""
    random = generator(seed)
    language_ids = torch.arange(clips) % 2
    low, high = torch.tensor([300.0, 1500.0])[language_ids], torch.tensor([900.0, 4000.0])[language_ids]
    hz = low + (high - low) * torch.rand(clips, generator=random)
    waves = sines(hz.tolist(), 1.2) + 0.05 * torch.randn(clips, int(1.2 * SAMPLE_RATE_HZ), generator=random)
    return *normalise(log_mel(waves), torch.full((clips,), frames(waves.shape[1]))), language_ids


def fitted(seed: int) -> ConvNet:
    return fit_languages(*two_languages(64, 0), steps=25, seed=seed, batch_size=32)


def test_a_net_trained_from_scratch_computes_where_its_clips_are() -> None:
    """The draws are a CPU's; all else is on the device, which for this test computes shapes only."""
    tower = ScratchAudioTower(4, 8, indicator=2).to("meta").train()
    mels, mask = torch.zeros(3, MELS, 120, device="meta"), torch.ones(3, 120, dtype=torch.bool, device="meta")
    rep = tower(mels, mask, torch.zeros(3, dtype=torch.bool, device="meta"))
    assert (rep.device.type, rep.shape) == ("meta", (3, 8))


def test_languages_are_learnt_and_the_fit_is_reproducible() -> None:
    steps: list[int] = []
    mels, mask, language_ids = two_languages(64, 0)
    net = fit_languages(
        mels, mask, language_ids, steps=25, seed=0, batch_size=32, on_step=lambda: steps.append(len(steps))
    )
    assert steps == list(range(25))
    assert not net.training
    new_mels, new_mask, new_ids = two_languages(64, 1)
    with torch.inference_mode():
        features, new = net(mels, mask), net(new_mels, new_mask)
    centres = torch.stack([features[language_ids == i].mean(dim=0) for i in range(2)])
    accuracy = (torch.cdist(new, centres).argmin(dim=1) == new_ids).double().mean()
    assert accuracy > 0.9  # chance is 0.5
    state, again, other = net.state_dict(), fitted(0).state_dict(), fitted(1).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in state.items())
    assert not torch.equal(state["convolutions.0.weight"], other["convolutions.0.weight"])


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 7])
def test_any_number_of_steps_can_be_fitted(steps: int) -> None:
    mels, mask, language_ids = two_languages(8, 0)
    net = fit_languages(mels, mask, language_ids, steps=steps, seed=0, batch_size=8)
    assert bool(net(mels, mask).isfinite().all())


def test_fitting_leaves_the_global_random_state() -> None:
    before = torch.random.get_rng_state()
    fit_languages(*two_languages(8, 0), steps=1, seed=0, batch_size=8)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_net_trained_from_scratch_maps_log_mels() -> None:
    torch.manual_seed(0)
    tower = ScratchAudioTower(8, 16)
    mels, mask, _ = two_languages(6, 0)
    training = tower(mels.half(), mask.bool())
    assert training.shape == (6, 16)
    training.square().sum().backward()
    assert all(parameter.grad is not None for parameter in tower.parameters())
    tower.eval()
    assert torch.equal(tower(mels, mask), tower(mels, mask))


# ---- heads


def heads() -> list[AudioHead | ImageHead]:
    return [AudioHead(6, 4, 16, noise=0.5), ImageHead(6, 12, 16, dropout=0.0, noise=0.5)]


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_heads_standardise_by_the_training_features(head: AudioHead | ImageHead) -> None:
    features = 5 + 3 * torch.randn(50, 6, generator=generator())
    features[:, 2] = 7.0  # a feature that is always the same
    head.standardise_by(features.mean(dim=0), features.std(dim=0))
    seen: list[Tensor] = []
    head.layers.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    head.eval()(features)
    torch.testing.assert_close(seen[0].mean(dim=0), torch.zeros(6), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0].std(dim=0)[[0, 1, 3, 4, 5]], torch.ones(5))
    assert {"mean_F", "std_F"} <= set(head.state_dict())


@pytest.mark.parametrize("head", heads(), ids=lambda head: type(head).__name__)
def test_heads_add_noise_in_training_only(head: AudioHead | ImageHead) -> None:
    features = torch.randn(4, 6, generator=generator())
    head.train()
    assert not torch.equal(head(features), head(features))
    head.eval()
    reps = head(features)
    assert torch.equal(reps, head(features))
    assert reps.shape == (4, 16)
    torch.testing.assert_close(reps.mean(dim=1), torch.zeros(4), atol=1e-5, rtol=0)  # LayerNormed
    torch.testing.assert_close(reps.square().mean(dim=1), torch.ones(4), atol=1e-3, rtol=0)


# ---- image


def picture(seed: int = 0) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8).repeat(8, 0).repeat(8, 1)


def test_views_are_the_image_and_augmented_ones() -> None:
    views = pixel_views(picture(), 4, 0, "an image")
    assert views.shape == (4, 3, 224, 224)
    assert float(views.min()) >= -1
    assert float(views.max()) <= 1
    for first in range(4):
        for second in range(first):
            assert float((views[first] - views[second]).abs().mean()) > 0.02
    assert torch.equal(views, pixel_views(picture(), 4, 0, "an image"))
    assert torch.equal(views[:2], pixel_views(picture(), 2, 0, "an image"))
    others = pixel_views(picture(), 4, 0, "another image")
    assert torch.equal(others[0], views[0])
    assert not torch.equal(others[1], views[1])


def test_views_do_not_depend_on_the_number_of_threads() -> None:
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 3, 8):
            torch.set_num_threads(threads)
            found.append(pixel_views(picture(), 8, 0, "an image"))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(views, found[0]) for views in found)


def test_the_clean_view_is_the_image_resized() -> None:
    image = np.zeros((100, 50, 3), dtype=np.uint8)
    image[:50] = 255
    clean = pixel_views(image, 1, 0)[0]
    torch.testing.assert_close(clean[:, :100], torch.ones(3, 100, 224))
    torch.testing.assert_close(clean[:, 124:], -torch.ones(3, 100, 224))


def test_the_backbone_gives_an_image_the_same_features_in_any_batch() -> None:
    backbone = open_image_backbone("efficientnet-lite0")
    half = np.full((50, 50, 3), 255, dtype=np.uint8)
    half[:, 25:] = 0
    pixels = torch.cat([pixel_views(image, 1) for image in (picture(), half, picture(1))])
    features = backbone.features(pixels)
    assert features.shape == (3, 1280)
    assert features.dtype == torch.float32
    alone = backbone.features(pixels[1:2])[0]
    assert float(F.cosine_similarity(alone, features[1], dim=0)) > 0.995
    assert float(F.cosine_similarity(features[0], features[1], dim=0)) < 0.9
    with pytest.raises(UsageError, match=r"^image=magic: unknown image tower; known: efficientnet-lite0, clip"):
        open_image_backbone("magic")


# ---- text


def test_known_words_have_rows_of_their_own() -> None:
    words = ["cat", "γάτα", "dog", "σκύλος", "cat"]
    tokeniser = Tokeniser(words, buckets=7)
    rows = [tokeniser.rows_of(word) for word in dict.fromkeys(words)]
    assert rows == [[0], [1], [2], [3]]
    assert tokeniser.rows == 4 + 7


def test_unknown_words_are_their_ngrams_and_nothing_else() -> None:
    tokeniser = Tokeniser(["cat"], buckets=1000)
    grams = ["<ca", "cat", "ats", "ts>"]
    assert tokeniser.rows_of("cats") == [1 + zlib.crc32(gram.encode()) % 1000 for gram in grams]
    assert tokeniser.rows_of("cats") == [525, 833, 610, 729]  # the same on every machine
    assert tokeniser.rows_of("犬") == [1 + zlib.crc32("<犬>".encode()) % 1000]
    assert tokeniser.rows_of("") == [1 + zlib.crc32(b"<>") % 1000]
    shared = Tokeniser(["cat"], buckets=1000, share_ngrams=True)
    assert shared.rows_of("cat") == [0, *(1 + zlib.crc32(gram) % 1000 for gram in (b"<ca", b"cat", b"at>"))]
    assert shared.rows_of("cats") == tokeniser.rows_of("cats")


@settings(deadline=None)
@given(st.lists(st.lists(st.text("abγ犬", max_size=6), min_size=1, max_size=4), min_size=1, max_size=5))
def test_texts_are_the_rows_of_their_words(texts: list[list[str]]) -> None:
    tokeniser = Tokeniser(["a", "ab", "γ犬"], buckets=16)
    tokenised = tokeniser(["_".join(words) for words in texts])
    assert tokenised.word_counts.tolist() == [len(words) for words in texts]
    expected = [[row for word in words for row in tokeniser.rows_of(word)] for words in texts]
    ends = [*tokenised.starts.tolist()[1:], len(tokenised.row_ids)]
    found = [tokenised.row_ids[start:end].tolist() for start, end in zip(tokenised.starts.tolist(), ends, strict=True)]
    assert found == expected
    assert int(tokenised.row_ids.max()) < tokeniser.rows


def random_bags(rows: int, bags: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """A table, the rows of all bags (rows come twice, one never, one bag is empty), and where each bag begins."""
    random = generator(seed)
    sizes = torch.randint(1, 6, (bags,), generator=random)
    sizes[bags // 2] = 0
    row_ids = torch.randint(rows - 1, (int(sizes.sum()),), generator=random)
    return torch.randn(rows, 3, generator=random, dtype=torch.float64), row_ids, sizes.cumsum(0) - sizes


@pytest.mark.parametrize("seed", range(5))
def test_bag_sums_have_the_values_and_gradients_of_embedding_bag(seed: int) -> None:
    table, row_ids, starts = random_bags(9, 7, seed)
    weights = torch.randn(7, 3, generator=generator(seed), dtype=torch.float64)
    results = []
    for function in (
        lambda table: BagSum.apply(table, row_ids, starts),
        lambda table: F.embedding_bag(row_ids, table, starts, mode="sum"),
    ):
        leaf = table.clone().requires_grad_()
        sums = function(leaf)
        (sums * weights).sum().backward()
        results.append((sums.detach(), leaf.grad))
    torch.testing.assert_close(results[0], results[1], rtol=1e-12, atol=1e-12)


def test_bag_sums_pass_gradcheck() -> None:
    table, row_ids, starts = random_bags(5, 4, 0)
    assert torch.autograd.gradcheck(lambda table: BagSum.apply(table, row_ids, starts), table.requires_grad_())


def test_text_representations_are_normalised_sums() -> None:
    torch.manual_seed(0)
    tokeniser = Tokeniser(["cat", "γάτα", "dog"], buckets=8)
    tower = TextTower(tokeniser.rows, 6)
    texts = ["cat_dog", "γάτα", "bird_cat_dog"]
    reps = tower(tokeniser(texts))
    for text, rep in zip(texts, reps, strict=True):
        total = [0.0] * 6
        for word in text.split("_"):
            for row in tokeniser.rows_of(word):
                total = [a + b for a, b in zip(total, tower.table[row].tolist(), strict=True)]
        scaled = [value / math.sqrt(text.count("_") + 1) for value in total]
        mean = sum(scaled) / 6
        deviation = math.sqrt(sum((value - mean) ** 2 for value in scaled) / 6 + tower.norm.eps)
        assert rep.tolist() == pytest.approx([(value - mean) / deviation for value in scaled], abs=1e-5)
    torch.testing.assert_close(tower(tokeniser(["dog_cat"]))[0], reps[0])  # their order says nothing
