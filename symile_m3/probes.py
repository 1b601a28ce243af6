"""Small probes: do text alone and speech alone say more of a sample than its generative process lets them?

For disjoint texts of w words the best accuracy from the text alone is exactly 1/w, for the class and for the
language; from speech alone it is 1/K for the class (Saporta et al. 2024, section 5.1). Whatever a probe has
learnt from the training split, its number of right answers on n test samples is then at most binomial,
so more than the limit given here means that the data say more than they may.

Array suffixes: N samples, W words a text, C features or classes, M bands, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from symile_m3.audit_facts import Samples
from symile_m3.errors import ShardError
from symile_m3.plan import Plan
from symile_m3.progress import Progress
from symile_m3.shards import DatasetLayout, ShardReader, decode_audio

if TYPE_CHECKING:
    import torch

CONFIDENCE = 0.999
_TEXT_STEPS, _AUDIO_STEPS, _BATCH = 600, 600, 256
_TEST_ROWS = 1 << 16  # so many at a time are tested
_WORDS = ("word_class_ids", "word_language_ids")
_RATE_HZ, _FFT, _HOP, _BANDS = 16_000, 400, 160, 40


@dataclass(frozen=True, kw_only=True, slots=True)
class _Labelled:
    """The samples of a split.

    Attributes:
        rows: (N,) of `symile_m3.audit_facts.sample_type`.
        clips: (N,) positions in the list of distinct clips.
    """

    rows: NDArray[np.void]
    clips: NDArray[np.int32]

    def words(self, chosen: NDArray[np.int64] | slice) -> torch.Tensor:
        """(n, W, 2) class and language of each word of some samples."""
        import torch

        columns = [self.rows[name][chosen].astype(np.int64) for name in _WORDS]
        return torch.from_numpy(np.stack(columns, axis=2))

    def labels(self, name: str, chosen: NDArray[np.int64] | slice) -> torch.Tensor:
        """(n,) `class_id` or `language_id` of some samples."""
        import torch

        return torch.from_numpy(self.rows[name][chosen].astype(np.int64))

    def slices(self) -> Iterator[slice]:
        """All samples, some at a time."""
        for start in range(0, len(self.rows), _TEST_ROWS):
            yield slice(start, start + _TEST_ROWS)


def binomial_limit(p: float, n: int, confidence: float = CONFIDENCE) -> float:
    """The share of n answers, right with probability p, that luck passes once in 1 / (1 - confidence)."""
    if p >= 1 or n == 0:
        return 1.0
    below = 0.0
    for k in range(n + 1):
        below += math.exp(
            math.lgamma(n + 1)
            - math.lgamma(k + 1)
            - math.lgamma(n - k + 1)
            + k * math.log(p)
            + (n - k) * math.log1p(-p)
        )
        if below >= confidence:
            return k / n
    return 1.0


def run_probes(
    layout: DatasetLayout, plan: Plan, train_samples: Samples, test_samples: Samples, progress: Progress
) -> tuple[dict[str, dict[str, float]], list[str]]:
    """Train each probe on the train split, as it is on disk, and test it on the test split.

    Returns:
        Name -> `accuracy` and, where the process has them, `exact` and `limit`; and a line for each probe
        that passes its limit.
    """
    if not len(train_samples.rows) or not len(test_samples.rows):
        return {}, ["probes: no readable samples of train or of test"]
    train, test, clips = _labelled(train_samples, test_samples)
    classes, languages, w = len(plan.lexicon), len(plan.lexicon.languages), plan.config.words
    in_text = 1 / w if plan.config.text == "disjoint" else None
    with _one_thread(), progress.task("Training probes", 4, "probes") as task:
        accuracies: dict[str, tuple[float, float | None]] = {}
        for name, label in (("class from text", "class_id"), ("language from text", "language_id")):
            accuracies[name] = (_text_accuracy(plan, train, test, label), in_text)
            task.advance()
        features_NC = _clip_features(layout, clips)
        for name, label, count, exact in (
            ("class from speech", "class_id", classes, 1 / classes),
            ("language from speech", "language_id", languages, None),
        ):
            accuracies[name] = (_audio_accuracy(features_NC, train, test, label, count), exact)
            task.advance()
    n = len(test.rows)
    results: dict[str, dict[str, float]] = {}
    problems = []
    for name, (accuracy, exact) in accuracies.items():
        results[name] = {"accuracy": accuracy}
        if exact is not None:
            limit = binomial_limit(exact, n)
            results[name] |= {"exact": exact, "limit": limit}
            if accuracy > limit:
                problems.append(
                    f"probe: {name} alone is right for {accuracy:.3f} of {n} test samples where at best "
                    f"{exact:.3f} is possible, {limit:.3f} with luck: the data say more than they may"
                )
    return results, problems


def _labelled(train: Samples, test: Samples) -> tuple[_Labelled, _Labelled, list[tuple[str, int]]]:
    """The samples with their clips numbered in the order of occurrence, and where each clip occurs first."""
    ids = np.concatenate([train.rows["clip_id"], test.rows["clip_id"]])
    _, first, which = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(first)
    numbers = np.empty(len(order), np.int32)
    numbers[order] = np.arange(len(order), dtype=np.int32)
    clips, n = numbers[which], len(train.rows)
    places = [train.place(i) if i < n else test.place(i - n) for i in first[order].tolist()]
    return _Labelled(rows=train.rows, clips=clips[:n]), _Labelled(rows=test.rows, clips=clips[n:]), places


def _text_accuracy(plan: Plan, train: _Labelled, test: _Labelled, label: str) -> float:
    """Accuracy of a log-linear model of the class or the language that some word of the text has.

    Each word gets a score from its position, class and language, and from how its class and language go
    with those of the other words; the scores of words of one class (language) are added up by log-sum-exp.
    Nothing about which words there are need be learnt, so a few thousand samples are enough.
    """
    import torch

    classes, languages, w = len(plan.lexicon), len(plan.lexicon.languages), plan.config.words
    column = ("class_id", "language_id").index(label)
    generator = torch.Generator().manual_seed(0)
    rank = 8

    def table(*shape: int, scale: float = 0.0) -> torch.Tensor:
        return (torch.randn(shape, generator=generator) * scale).requires_grad_()

    position, of_class, of_language = table(w), table(classes), table(languages)
    pairs = table(languages, languages)
    left, right = table(classes, rank, scale=0.1), table(classes, rank, scale=0.1)
    parameters = [position, of_class, of_language, pairs, left, right]

    def scores(words_NW2: torch.Tensor) -> torch.Tensor:
        class_NW, lang_NW = words_NW2[..., 0], words_NW2[..., 1]
        own_NW = position + of_class[class_NW] + of_language[lang_NW]
        around_NW = pairs[lang_NW[:, :, None], lang_NW[:, None, :]].sum(2)
        context_NC = right[class_NW].sum(1, keepdim=True)
        return own_NW + around_NW + (left[class_NW] * (context_NC - right[class_NW])).sum(2)

    def loss(words_NW2: torch.Tensor, label_N: torch.Tensor) -> torch.Tensor:
        scores_NW = scores(words_NW2)
        wrong_NW = words_NW2[..., column] != label_N[:, None]
        return (scores_NW.logsumexp(1) - scores_NW.masked_fill(wrong_NW, -1e9).logsumexp(1)).mean()

    told_NW = train.rows[_WORDS[column]] == train.rows[label][:, None]
    present = np.flatnonzero(told_NW.any(axis=1))
    if not len(present):
        return 0.0

    def loss_of(i: torch.Tensor) -> torch.Tensor:
        chosen = present[i.numpy()]
        return loss(train.words(chosen), train.labels(label, chosen))

    _fit(parameters, loss_of, len(present), _TEXT_STEPS, generator)
    correct = 0
    with torch.no_grad():
        for part in test.slices():
            words = test.words(part)
            scores_NW = scores(words)
            same_NWW = words[..., column][:, :, None] == words[..., column][:, None, :]
            total_NW = scores_NW[:, None, :].masked_fill(~same_NWW, -1e9).logsumexp(2)
            answer_N = words[..., column].gather(1, total_NW.argmax(1, keepdim=True))[:, 0]
            correct += int((answer_N == test.labels(label, part)).sum())
    return correct / len(test.rows)


def _audio_accuracy(
    features_NC: NDArray[np.float32], train: _Labelled, test: _Labelled, label: str, count: int
) -> float:
    """Accuracy of a network with one hidden layer on the features of the clips."""
    import torch

    generator = torch.Generator().manual_seed(0)
    known_NC = features_NC[np.unique(train.clips)]
    scaled = torch.from_numpy((features_NC - known_NC.mean(0)) / (known_NC.std(0) + 1e-5))
    hidden = 128
    into = (torch.randn(scaled.shape[1], hidden, generator=generator) / scaled.shape[1] ** 0.5).requires_grad_()
    bias = torch.zeros(hidden, requires_grad=True)
    out = torch.zeros(hidden, count, requires_grad=True)
    prior = torch.zeros(count, requires_grad=True)

    def logits(clip_N: torch.Tensor) -> torch.Tensor:
        return torch.relu(scaled[clip_N] @ into + bias) @ out + prior

    def loss(i: torch.Tensor) -> torch.Tensor:
        chosen = i.numpy()
        clip_N = torch.from_numpy(train.clips[chosen])
        return torch.nn.functional.cross_entropy(logits(clip_N), train.labels(label, chosen))

    _fit([into, bias, out, prior], loss, len(train.rows), _AUDIO_STEPS, generator)
    correct = 0
    with torch.no_grad():
        for part in test.slices():
            answer_N = logits(torch.from_numpy(test.clips[part])).argmax(1)
            correct += int((answer_N == test.labels(label, part)).sum())
    return correct / len(test.rows)


@contextmanager
def _one_thread() -> Iterator[None]:
    """One thread for torch: these networks are so small that threads would mostly wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _fit(
    parameters: list[torch.Tensor],
    loss: Callable[[torch.Tensor], torch.Tensor],
    count: int,
    steps: int,
    generator: torch.Generator,
) -> None:
    import torch

    optimizer = torch.optim.AdamW(parameters, lr=1e-2, weight_decay=1e-2, fused=True)
    for _ in range(steps):
        chosen = torch.randint(count, (min(count, _BATCH),), generator=generator)
        optimizer.zero_grad()
        loss(chosen).backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _clip_features(layout: DatasetLayout, clips: Sequence[tuple[str, int]]) -> NDArray[np.float32]:
    """Mean and deviation over time of each log-mel band, and the duration: (number of clips, C).

    Args:
        clips: a shard and a position in it for each, shard by shard.
    """
    import torch

    window = torch.hann_window(_FFT)
    bands_FM = torch.from_numpy(_mel_bands())
    reader, opened = None, ""
    rows = []
    for shard, position in clips:
        if reader is None or shard != opened:
            if reader is not None:
                reader.close()
            reader, opened = ShardReader(layout.shard(shard)), shard
        try:
            wave_T, rate_hz = decode_audio(reader.read(position, ("flac",))["flac"])
        except (ShardError, ValueError):
            wave_T, rate_hz = np.zeros(_FFT, np.float32), _RATE_HZ
        wave = torch.from_numpy(wave_T)
        if len(wave) < _FFT:
            wave = torch.nn.functional.pad(wave, (0, _FFT - len(wave)))
        power_FT = torch.stft(wave, _FFT, _HOP, window=window, return_complex=True).abs() ** 2
        mel_TM = (power_FT.T @ bands_FM + 1e-8).log()
        duration_s = torch.tensor([len(wave_T) / rate_hz])
        rows.append(torch.cat([mel_TM.mean(0), mel_TM.std(0), duration_s]))
    if reader is not None:
        reader.close()
    features: NDArray[np.float32] = torch.stack(rows).numpy()
    return features


def _mel_bands() -> NDArray[np.float32]:
    """Triangular bands, evenly spaced in mel: (frequencies, M)."""
    top_mel = 2595 * math.log10(1 + _RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top_mel, _BANDS + 2) / 2595) - 1)
    hz_F1 = np.linspace(0, _RATE_HZ / 2, _FFT // 2 + 1)[:, None]
    rise = (hz_F1 - edges_hz[:-2]) / (edges_hz[1:-1] - edges_hz[:-2])
    fall = (edges_hz[2:] - hz_F1) / (edges_hz[2:] - edges_hz[1:-1])
    return np.maximum(0, np.minimum(rise, fall)).astype(np.float32)
