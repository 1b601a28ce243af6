"""Evaluation of 500,000 queries against 500,000 candidates at D = 8,192: memory measured, time from a slice.

    python benchmarks/retrieval.py                    the whole size, planned, and a slice of it, measured
    python benchmarks/retrieval.py --queries 2048     a larger slice

One block of queries is ranked against tiles of candidates, as `first_right` takes them when all of both lie in
temporary files: the same block against two numbers of candidates, so that the cost of one more candidate is known
without what is done once a block, and that cost is multiplied up. Memory is the highest of the process; it depends on
how many candidates there are by their labels only, and these have their whole size here. The table is printed and
written to benchmarks/results/retrieval.md, with JSON beside it. Needs 3 minutes, 3 GB of memory and 1 GB of disk.
"""

from __future__ import annotations

import argparse
import datetime
import json
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from _machine import hardware, status_bytes

from symile_m3.objectives import clip_scores, symile_scores
from symile_m3.objectives.scores import Scores
from symile_m3.ranking import Answers, first_right
from symile_m3.repstore import StoredRows

RESULTS = Path(__file__).parent / "results"
WHOLE, DIM, CLASSES = 500_000, 8192, 1000
LIMIT_BYTES = 4_000_000_000


class Repeated:
    """As many rows as are wanted, which are those of a smaller file again and again.

    Args:
        source: the file.
        rows: how many rows it pretends to have.
    """

    def __init__(self, source: StoredRows, rows: int) -> None:
        self._source, self._rows = source, rows

    def __len__(self) -> int:
        return self._rows

    def __getitem__(self, rows: torch.Tensor, /) -> torch.Tensor:
        return self._source[rows % len(self._source)]


def stored(rows: int, dim: int, seed: int) -> StoredRows:
    """Random rows, LayerNormed as representations are, in a temporary file."""
    random, file = torch.Generator().manual_seed(seed), StoredRows(dim)
    for start in range(0, rows, 1024):
        part = torch.randn(min(1024, rows - start), dim, generator=random)
        file.append(torch.nn.functional.layer_norm(part, (dim,)))
    return file


def seconds(scores: Scores, queries: Sequence[StoredRows], file: StoredRows, candidates: int) -> float:
    """CPU time to rank one block of queries against so many candidates.

    The queries are of as many classes as in such a block of the whole, where they are sorted by class.
    """
    classes = max(1, round(CLASSES * len(queries[0]) / WHOLE))
    answers = Answers(
        wanted_Q=torch.arange(len(queries[0])) % classes,
        labels_NW=(torch.arange(candidates) % CLASSES)[:, None],
    )
    began = time.process_time()
    ranks = first_right(scores, queries, Repeated(file, candidates), answers)
    assert bool((ranks > 0).all())
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=8192, help="a block; the time of fewer is less exact")
    parser.add_argument("--candidates", type=int, nargs=2, default=(4096, 8192), help="two sizes of the slice")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    before = status_bytes("VmRSS")
    whole_labels = [torch.arange(WHOLE) % CLASSES for _ in range(2)]  # those of all queries and all candidates
    file = stored(8192, DIM, 0)
    rows, lines, found = arguments.queries, [], {}
    few, many = arguments.candidates
    for name, scores in (("symile", symile_scores), ("clip", clip_scores)):
        queries = [stored(rows, DIM, seed) for seed in (1, 2)]
        times = [seconds(scores, queries, file, candidates) for candidates in (few, many)]
        pair_s = (times[1] - times[0]) / (many - few) / rows
        # Each candidate once a block, and once more for the block that asks for its class.
        hours = pair_s * WHOLE * WHOLE * (1 + rows / WHOLE) / 3600 / arguments.threads
        found[name] = {
            "cpu_seconds": times,
            "pairs_per_cpu_s": 1 / pair_s,
            "flop_per_cpu_s": 2 * DIM / pair_s,
            "hours": hours,
        }
        lines.append(
            f"| {name} | {times[0]:.1f} s | {times[1]:.1f} s | {1 / pair_s / 1e6:.1f} million | "
            f"{2 * DIM / pair_s / 1e9:.0f} GFLOP/s | {hours:.1f} h |"
        )
    assert len(whole_labels) == 2
    peak = status_bytes("VmHWM")
    result = {
        "hardware": hardware(),
        "threads": arguments.threads,
        "date": datetime.date.today().isoformat(),
        "queries": rows,
        "candidates": [few, many],
        "dim": DIM,
        "memory_bytes": peak,
        "memory_above_imports_bytes": peak - before,
        "disk_bytes": 3 * WHOLE * DIM * 4,
        "whole": found,
    }
    disk_gb = 3 * WHOLE * DIM * 4 / 1e9
    head = ("objective", f"{few:,} candidates", f"{many:,} candidates", "pairs a core and second", "arithmetic a core")
    text = "\n".join(
        [
            f"# {WHOLE:,} queries against {WHOLE:,} candidates, D = {DIM:,}",
            "",
            f"`benchmarks/retrieval.py`, {hardware()}, {arguments.threads} threads, {result['date']}.",
            "",
            f"Measured: a block of {rows:,} queries against {few:,} and {many:,} candidates in temporary files.",
            f"The whole is {-(-WHOLE // rows)} such blocks, each against {WHOLE:,}. Times are CPU time of all threads,",
            f"as other work ran beside it; the last column is that time shared by {arguments.threads} cores.",
            "",
            f"| {' | '.join(head)} | whole, extrapolated |",
            "|---|---|---|---|---|---|",
            *lines,
            "",
            f"Memory at the highest: {peak / 1e9:.2f} GB, of which {before / 1e9:.2f} GB are the interpreter and its",
            f"libraries; the limit is {LIMIT_BYTES / 1e9:.0f} GB. Temporary disk of the whole: {disk_gb:.0f} GB,",
            "three modalities in float32, where every sample has an image and a clip of its own.",
            "",
        ]
    )
    print(text)
    (RESULTS / "retrieval.md").write_text(text, encoding="utf-8")
    (RESULTS / "retrieval.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    assert peak < LIMIT_BYTES, f"{peak / 1e9:.2f} GB"


if __name__ == "__main__":
    main()
