"""One run of the synthetic experiment: train on one objective, then retrieve one vector from the others.

Suffixes: M vectors of a sample, N samples, B batch, d bits, Q queries, D dimensions, C candidates.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from symile_m3.errors import TrainingError, UsageError
from symile_m3.objectives import Objective, get_objective
from symile_m3.seeds import generator, philox_key
from symile_m3.synthetic.encoders import Encoders
from symile_m3.synthetic.process import XorProcess

Hits = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentConfig:
    """What one run does; sizes as in the paper unless said.

    Attributes:
        objective: by name, with its own loss, score and range of the scale.
        predicted: the letter of the vector that is retrieved.
        seed: of the training samples, the batches, and what the parameters start from.
        test_seed: of the test samples, which are the same for all seeds.
        steps: of training; the paper takes 1,000 (100 epochs).
        missing_p: each vector of each training sample is missing with this probability, and so is each vector of
            the queries in a second test.
        train, test: samples.
        batch: samples a step.
        dim: D of the representations.
        learning_rate: of AdamW, falling to 0 in a straight line (in the paper constant).
        weight_decay: of AdamW.
    """

    objective: str
    predicted: str = "b"
    seed: int = 0
    test_seed: int = 0
    steps: int = 200
    missing_p: float = 0.0
    train: int = 10_000
    test: int = 5_000
    batch: int = 1_000
    dim: int = 16
    learning_rate: float = 0.1
    weight_decay: float = 0.01

    def __post_init__(self) -> None:
        get_objective(self.objective)
        if not 0.0 <= self.missing_p < 1.0:
            raise UsageError(f"--missing-p {self.missing_p:g}: give a number from 0 to less than 1")
        if self.steps < 1 or not 2 <= self.batch <= self.train or self.test < 1 or self.dim < 1:
            raise UsageError(
                f"{self.steps} steps of {self.batch} samples out of {self.train}, {self.test} to test, {self.dim} "
                "dimensions: all must be at least 1, a batch at least 2 and no more than there are"
            )


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentResult:
    """What a run found.

    Attributes:
        process, config: of the run.
        hits_Q: whether each complete test query was answered right.
        hidden_hits_Q: the same with vectors of the queries missing; None for a run without.
        missing_Q: how many vectors of each query were missing then; None for a run without.
        loss_nats: mean over the last tenth of the steps.
    """

    process: XorProcess
    config: ExperimentConfig
    hits_Q: Hits
    hidden_hits_Q: Hits | None
    missing_Q: NDArray[np.int64] | None
    loss_nats: float


def run_experiment(process: XorProcess, config: ExperimentConfig) -> ExperimentResult:
    """Train and test once; the same arguments give the same result, on one thread.

    Raises:
        UsageError: the two do not go together; see `check_experiment`.
        TrainingError: the loss is not finite any more.
    """
    check_experiment(process, config)
    with _one_thread():
        encoders, loss_nats = train(process, config)
        return test(encoders, process, config, loss_nats)


def check_experiment(process: XorProcess, config: ExperimentConfig) -> None:
    """Nothing, if the run can be done on the process.

    Raises:
        UsageError: the process has no such vector, too many candidates, or a number of vectors that the objective is
            not for.
    """
    process.index(config.predicted)
    process.candidates()
    wanted = get_objective(config.objective).modalities
    if wanted not in (None, process.modalities):
        raise UsageError(f"--objective {config.objective}: for {wanted} vectors a sample, not {process.modalities}")


def train(process: XorProcess, config: ExperimentConfig) -> tuple[Encoders, float]:
    """Trained encoders, and the mean loss of the last tenth of the steps."""
    objective = get_objective(config.objective)
    random = torch.Generator().manual_seed(philox_key("xor-training", config.seed) % 2**63)
    encoders = Encoders(process, config.dim, objective, random)
    vectors_MNd = process.samples(config.train, config.seed, "train")
    bits_MNd = torch.from_numpy(vectors_MNd)
    labels_MN = torch.from_numpy(process.numbers(vectors_MNd))  # equal vectors are equally right
    observed_MN = _observed(process, config.train, config.missing_p, config.seed, "train")
    optimiser = torch.optim.AdamW(encoders.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    last: list[float] = []
    for step, rows_B in enumerate(_batches(config)):
        for group in optimiser.param_groups:
            group["lr"] = config.learning_rate * (1 - step / config.steps)
        present_MB = None if observed_MN is None else observed_MN[:, rows_B]
        loss = objective.loss(
            encoders(bits_MNd[:, rows_B], present_MB),
            encoders.log_scale.exp(),
            observed=None if present_MB is None else list(present_MB),
            generator=random,
            head=encoders.head,
            labels=list(labels_MN[:, rows_B]),
        )
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        encoders.clamp_scale()
        last.append(loss.item())
        if not np.isfinite(last[-1]):
            where = f"{config.objective}, p = {process.p:g}, seed {config.seed}"
            raise TrainingError(f"{where}: the loss is {last[-1]} after {step + 1} steps")
    return encoders, float(np.mean(last[-max(1, config.steps // 10) :]))


@torch.inference_mode()
def test(encoders: Encoders, process: XorProcess, config: ExperimentConfig, loss_nats: float) -> ExperimentResult:
    """Retrieve the predicted vector of every test sample among all there are, from complete queries and from others."""
    objective = get_objective(config.objective)
    bits_MQd = process.samples(config.test, config.test_seed, "test")
    answers_Q = process.numbers(bits_MQd[process.index(config.predicted)])
    observed_MQ = _observed(process, config.test, config.missing_p, config.test_seed, "test")
    queries_MQd = torch.from_numpy(bits_MQd)
    hits_Q = _retrieve(encoders, process, config, objective, queries_MQd, None) == answers_Q
    hidden_hits_Q, missing_Q = None, None
    if observed_MQ is not None:
        hidden_hits_Q = _retrieve(encoders, process, config, objective, queries_MQd, observed_MQ) == answers_Q
        others = [index for index, name in enumerate(process.names) if name != config.predicted]
        missing_Q = (~observed_MQ[others]).sum(dim=0).numpy()
    return ExperimentResult(
        process=process,
        config=config,
        hits_Q=hits_Q,
        hidden_hits_Q=hidden_hits_Q,
        missing_Q=missing_Q,
        loss_nats=loss_nats,
    )


def _retrieve(
    encoders: Encoders,
    process: XorProcess,
    config: ExperimentConfig,
    objective: Objective,
    bits_MQd: Tensor,
    observed_MQ: Tensor | None,
) -> NDArray[np.int64]:
    """The number of the best candidate of each query, (Q,)."""
    target = process.index(config.predicted)
    reps_QD = encoders(bits_MQd, observed_MQ)
    candidates_CD = encoders.encode(target, torch.from_numpy(process.candidates()))
    given = [index for index in range(process.modalities) if index != target]
    scores = objective.scores_with(encoders.head, retrieved=target, given=given)
    best_Q: NDArray[np.int64] = scores([reps_QD[index] for index in given], candidates_CD).argmax(dim=1).numpy()
    return best_Q


def _observed(process: XorProcess, count: int, missing_p: float, seed: int, split: str) -> Tensor | None:
    """(M, N) which vectors are there; None where all are."""
    if missing_p == 0:
        return None
    random = generator("xor-missing", seed, split)
    return torch.from_numpy(random.random((process.modalities, count)) >= missing_p)


def _batches(config: ExperimentConfig) -> Iterator[Tensor]:
    """(B,) rows of the training samples, in a new order each epoch; what does not fill a batch is left out."""
    per_epoch = config.train // config.batch
    for step in range(config.steps):
        epoch, place = divmod(step, per_epoch)
        if place == 0:
            order = torch.from_numpy(generator("xor-order", config.seed, epoch).permutation(config.train))
        yield order[place * config.batch : (place + 1) * config.batch]


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """One thread, so that sums are in one order whatever else runs here: matrices this small gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
