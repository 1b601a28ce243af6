"""Which objectives pass 1/w, on clean inputs: `python benchmarks/rivals.py [--languages 2] [--out FILE]`.

An image is its class's random vector, a clip its language's, a text the bag of its words; linear maps and LayerNorm
make representations of them, and images of all classes are ranked for new (audio, text) queries. Nothing stands between
the objective and the task: a reader of the text alone is right in 1/w. Each objective has the same steps and samples;
of some learning rates the one that is best on draws for validation counts.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path
from typing import Any

import torch
from _machine import hardware
from torch import Tensor, nn

from symile_m3.objectives import OBJECTIVES, Objective, get_objective

RATES = (0.003, 0.03)
QUERIES = 2000


class Towers(nn.Module):
    """A linear map of an image's and a clip's vector, an embedding bag of a text's words, each with LayerNorm."""

    def __init__(self, objective: Objective, classes: int, languages: int, dim: int) -> None:
        super().__init__()
        self.languages = languages
        self.image, self.audio = nn.Linear(classes, dim), nn.Linear(languages, dim)
        self.words = nn.EmbeddingBag(classes * languages, dim, mode="sum")
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(3))
        self.log_scale = nn.Parameter(torch.tensor(objective.init_log_scale))
        self.register_buffer("image_KK", torch.randn(classes, classes) / math.sqrt(classes))
        self.register_buffer("audio_LL", torch.randn(languages, languages))
        self.head = objective.head(3, dim) if objective.head else nn.ParameterDict()

    def forward(self, classes_B: Tensor, languages_B: Tensor, words_BW: Tensor) -> list[Tensor]:
        reps = [self.image(self.image_KK[classes_B]), self.audio(self.audio_LL[languages_B]), self.words(words_BW)]
        return [norm(rep) for norm, rep in zip(self.norms, reps, strict=True)]


def draw(rows: int, classes: int, languages: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Classes, languages and words; a text has one word in each language, of distinct classes."""
    order = torch.rand(rows, classes, generator=generator).argsort(dim=1)[:, :languages]
    spoken = torch.randint(languages, (rows,), generator=generator)
    return order.gather(1, spoken[:, None])[:, 0], spoken, order * languages + torch.arange(languages)


def accuracy(towers: Towers, objective: Objective, classes: int, seed: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    wanted, spoken, words = draw(QUERIES, classes, towers.languages, generator)
    with torch.inference_mode():
        every = torch.arange(classes)
        candidates = towers(every, every % towers.languages, words[:classes])[0]
        _, audio, text = towers(wanted, spoken, words)
        scores = objective.scores_with(towers.head, retrieved=0, given=(1, 2))([audio, text], candidates)
    return float((scores.argmax(dim=1) == wanted).double().mean())


def train(name: str, rate: float, seed: int, settings: argparse.Namespace) -> tuple[Towers, Objective, float]:
    torch.manual_seed(seed)
    objective = get_objective(name)
    towers = Towers(objective, settings.classes, settings.languages, settings.dim)
    optimizer = torch.optim.AdamW(towers.parameters(), lr=rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, settings.steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    began = time.process_time()
    for _ in range(settings.steps):
        wanted, spoken, words = draw(settings.batch, settings.classes, settings.languages, generator)
        labels = [wanted, spoken, wanted * settings.languages + spoken]
        reps, scale = towers(wanted, spoken, words), towers.log_scale.exp()
        loss = objective.loss(reps, scale, generator=generator, head=towers.head, labels=labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        with torch.no_grad():
            towers.log_scale.clamp_(max=objective.max_log_scale)
    return towers, objective, time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in {"languages": 2, "classes": 50, "dim": 128, "batch": 128, "steps": 400, "seeds": 2}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--objective", action="append", choices=OBJECTIVES)
    parser.add_argument("--out", type=Path)
    settings = parser.parse_args()
    print(f"1/w is {1 / settings.languages:.3f}, chance {1 / settings.classes:.3f}", flush=True)
    results: dict[str, Any] = {}
    for name in settings.objective or OBJECTIVES:
        found = []
        for seed in range(settings.seeds):
            runs = [(rate, *train(name, rate, seed, settings)) for rate in RATES]
            best = max(runs, key=lambda run: accuracy(run[1], run[2], settings.classes, 1_000_000 + seed))
            rate, towers, objective, seconds = best
            top1 = accuracy(towers, objective, settings.classes, 2_000_000 + seed)
            found.append({"top1": top1, "rate": rate, "ms_a_step": 1000 * seconds / settings.steps})
        results[name] = found
        shares = "  ".join(f"{run['top1']:.3f} (rate {run['rate']}, {run['ms_a_step']:.1f} ms)" for run in found)
        print(f"{name:9s} {shares}", flush=True)
    if settings.out:
        record = {"hardware": hardware(), "settings": {k: v for k, v in vars(settings).items() if k != "out"}}
        settings.out.write_text(json.dumps(record | {"results": results}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
