"""The objectives against the `symile` package and plain PyTorch: time, memory, and whether they agree.

    python benchmarks/objectives.py                   everything; under ten minutes on two cores
    python benchmarks/objectives.py --device cuda     the same on an accelerator, in bfloat16
    python benchmarks/objectives.py --table           the table of what has been measured

Forward and backward, with gradients of all representations and of the scale. The implementations take turns, so that
a machine that slows down slows all of them; ratios are of the medians, with the least and the greatest of any round.
Peak memory is that of one run in a fresh process. Figures go to benchmarks/results/objectives/<device>.json, the
tables to benchmarks/results/objectives.md. Exits with 1 if losses or gradients differ from the package's.

Suffixes: N rows, D dimensions, I, J, K rows of the first, second and third modality.
"""

from __future__ import annotations

import argparse
import datetime
import gc
import importlib.metadata
import json
import multiprocessing
import re
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from functools import partial, reduce
from itertools import combinations
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.nn.functional as F
from _machine import cores, hardware, status_bytes
from torch import Tensor

from symile_m3.objectives import clip_loss, symile_loss

try:
    from symile import Symile as PackageSymile
except ImportError:
    PackageSymile = None

RESULTS = Path(__file__).parent / "results"
MISSING = "The peer is missing: pip install symile (it is part of the extra `dev`: pip install -e '.[dev]')"
TOLERANCE = 1e-5
LOGIT_STD = 1.6  # of MIPs of LayerNormed rows times the scale, which is then 0.05 for D = 1024
CLIP_SCALE = 1 / 0.07
ROUNDS = 15  # at most, and two at least
WARM_S = 20.0  # the first round is discarded unless it takes longer: what it would warm up is warm by then
MEMORY_SHARE = 0.8  # of the free memory that an estimate may fill
# Peak memory of n2 with three modalities as multiples of N^2 D and N^3 numbers, fitted to runs with N <= 384.
PEAKS = {"package": (8.4, 8.0), "einsum": (2.0, 5.0)}

Loss = Callable[[Sequence[Tensor], Tensor], Tensor]


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """What is measured: an objective of representations of some shape, type and place."""

    objective: str
    rows: int
    dim: int
    modalities: int = 3
    device: str = "cpu"
    dtype: str = "float32"

    def inputs(self) -> tuple[list[Tensor], Tensor]:
        """Random LayerNormed (N, D) representations and the () scale, which keeps the logits moderate."""
        generator = torch.Generator().manual_seed(self.rows)
        reps_ND = []
        for _ in range(self.modalities):
            rep_ND = F.layer_norm(torch.randn(self.rows, self.dim, generator=generator), (self.dim,))
            reps_ND.append(rep_ND.to(self.device, getattr(torch, self.dtype)).requires_grad_())
        scale = CLIP_SCALE if self.objective == "clip" else LOGIT_STD / self.dim**0.5
        return reps_ND, torch.tensor(scale, device=self.device, requires_grad=True)

    def estimate(self, label: str) -> int | None:
        """Bytes at the peak, where they may be more than there are."""
        if self.objective != "n2" or label not in PEAKS:
            return None
        planes, cubes = PEAKS[label]
        itemsize: int = getattr(torch, self.dtype).itemsize
        return round((planes * self.rows**2 * self.dim + cubes * self.rows**3) * itemsize)


@dataclass(kw_only=True, slots=True)
class Comparison:
    """What was measured of one case.

    Attributes:
        seconds: by implementation, one for each round; one in all where `alone`.
        peak_bytes: by implementation.
        too_large: by implementation that does not fit, the bytes that it is estimated to take.
        matmul_gflops: of each round.
        alone: one run each, in a fresh process.
    """

    case: Case
    seconds: dict[str, list[float]] = field(default_factory=dict)
    peak_bytes: dict[str, int] = field(default_factory=dict)
    too_large: dict[str, int] = field(default_factory=dict)
    matmul_gflops: list[float] = field(default_factory=list)
    alone: bool = False


def einsum_n2(reps_ND: Sequence[Tensor], scale: Tensor) -> Tensor:
    """The whole cube at once, and the cross-entropies along its three axes."""
    cube_IJK = torch.einsum("id,jd,kd->ijk", scale * reps_ND[0], *reps_ND[1:])
    positives_N = torch.einsum("iii->i", cube_IJK)
    return torch.stack([(cube_IJK.logsumexp(axes) - positives_N).mean() for axes in ((1, 2), (0, 2), (0, 1))]).mean()


def einsum_n(reps_ND: Sequence[Tensor], scale: Tensor) -> Tensor:
    """Each anchor with the shuffled other modalities, the positives on the diagonal."""
    rows, device = len(reps_ND[0]), reps_ND[0].device
    labels_N, diagonal_NN = torch.arange(rows, device=device), torch.eye(rows, dtype=torch.bool, device=device)
    positives_N = torch.einsum("nd,nd,nd->n", *reps_ND)
    losses = []
    for anchor, anchor_ND in enumerate(reps_ND):
        others_ND = [rep[torch.randperm(rows, device=device)] for m, rep in enumerate(reps_ND) if m != anchor]
        # In one einsum of three operands, anchors and others would be combined first, in N^2 D numbers.
        products_NN = torch.einsum("id,jd->ij", anchor_ND, reduce(torch.mul, others_ND))
        logits_NN = torch.where(diagonal_NN, positives_N, products_NN)
        losses.append(F.cross_entropy(scale * logits_NN, labels_N))
    return torch.stack(losses).mean()


def plain_clip(reps_ND: Sequence[Tensor], scale: Tensor) -> Tensor:
    """Cross-entropies of the cosines of all pairs, both ways."""
    units_ND = [F.normalize(rep_ND, dim=-1) for rep_ND in reps_ND]
    labels_N = torch.arange(len(units_ND[0]), device=units_ND[0].device)
    losses = []
    for left_ND, right_ND in combinations(units_ND, 2):
        logits_NN = scale * left_ND @ right_ND.T
        losses += [F.cross_entropy(logits_NN, labels_N), F.cross_entropy(logits_NN.T, labels_N)]
    return torch.stack(losses).mean()


def losses_of(objective: str) -> dict[str, Loss]:
    """The implementations of an objective: ours, and its peers."""
    if objective == "clip":
        return {"ours": clip_loss, "plain": plain_clip}
    losses: dict[str, Loss] = {"ours": partial(symile_loss, negatives=objective)}
    if objective == "n2":
        losses |= {"package": PackageSymile("n_squared"), "einsum": einsum_n2}
    if objective == "n":
        losses |= {"package": PackageSymile("n"), "einsum": einsum_n}
    return losses


def step(loss: Loss, reps_ND: Sequence[Tensor], scale: Tensor) -> tuple[float, Tensor]:
    """Seconds of one forward and backward pass, and the loss."""
    for tensor in (*reps_ND, scale):
        tensor.grad = None
    synchronise(scale)
    start = time.perf_counter()
    result = loss(reps_ND, scale)
    torch.autograd.backward(result)
    synchronise(scale)
    return time.perf_counter() - start, result.detach()


def synchronise(like: Tensor) -> None:
    if like.device.type == "cuda":
        torch.cuda.synchronize(like.device)


def matmul_gflops(device: str) -> float:
    """Rate of float32 products of square matrices: 1024 rows, 8192 on an accelerator."""
    rows, repeats = (1024, 10) if device == "cpu" else (8192, 5)
    factor = torch.ones(rows, rows, device=device)
    product = factor @ factor
    synchronise(product)
    start = time.perf_counter()
    for _ in range(repeats):
        torch.mm(factor, factor, out=product)
    synchronise(product)
    return repeats * 2 * rows**3 / (time.perf_counter() - start) / 1e9


def free_bytes(device: str) -> int:
    """Memory that nothing holds, or could be made to let go of at once."""
    if device == "cpu":
        return status_bytes("MemAvailable", "/proc/meminfo")
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info()[0]


def fits(case: Case, label: str) -> bool:
    """Whether the estimate, where there is one, leaves some of the free memory to others."""
    return (case.estimate(label) or 0) <= MEMORY_SHARE * free_bytes(case.device)


def take_turns(case: Case, limit_s: float) -> Comparison:
    """Time what fits, one implementation after the other, until the limit."""
    found = Comparison(case=case)
    losses = losses_of(case.objective)
    found.too_large = {label: case.estimate(label) or 0 for label in losses if not fits(case, label)}
    reps_ND, scale = case.inputs()
    seconds: dict[str, list[float]] = {label: [] for label in losses if label not in found.too_large}
    spent, warm = 0.0, False
    while len(found.matmul_gflops) < ROUNDS and (spent < limit_s or len(found.matmul_gflops) < 2):
        rate = matmul_gflops(case.device)
        took = {label: step(losses[label], reps_ND, scale)[0] for label in seconds}
        spent += sum(took.values())
        if warm or sum(took.values()) > WARM_S:
            found.matmul_gflops.append(rate)
            for label, value in took.items():
                seconds[label].append(value)
        warm = True
    found.seconds = seconds
    return found


def run_alone(case: Case, label: str) -> tuple[float, int, float]:
    """Seconds of one run, its peak memory in bytes and the matmul rate; for a fresh process.

    Counted is what this process comes to hold beyond what it held after a run on a few rows: the inputs and their
    gradients (2 M N D numbers), what is kept for the backward pass, and temporaries.
    """
    torch.set_num_threads(cores())
    loss = losses_of(case.objective)[label]
    step(loss, *replace(case, rows=8, dim=16).inputs())
    gc.collect()
    if case.device == "cpu":
        Path("/proc/self/clear_refs").write_text("5")  # the peak is the present again
        before = status_bytes("VmRSS")
    else:
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    seconds, _ = step(loss, *case.inputs())
    after = status_bytes("VmHWM") if case.device == "cpu" else torch.cuda.max_memory_allocated()
    return seconds, after - before, matmul_gflops(case.device)


def in_fresh_process(case: Case, label: str) -> tuple[float, int, float] | None:
    """The same in a process of its own; None if that was killed, which is what happens without memory."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            return pool.submit(run_alone, case, label).result()
        except (BrokenProcessPool, torch.OutOfMemoryError):
            return None


def measure_peaks(found: Comparison) -> Comparison:
    for label in found.seconds:
        result = in_fresh_process(found.case, label)
        if result is not None:
            found.peak_bytes[label] = result[1]
    return found


def compare_alone(case: Case, labels: Sequence[str]) -> Comparison:
    """Time and memory of one run each, in fresh processes: for what is too large to repeat."""
    found = Comparison(case=case, alone=True)
    for label in losses_of(case.objective):
        if not fits(case, label):
            found.too_large[label] = case.estimate(label) or 0
        elif label in labels and (result := in_fresh_process(case, label)) is not None:
            found.seconds[label], found.peak_bytes[label] = [result[0]], result[1]
            found.matmul_gflops.append(result[2])
    return found


def measure(device: str) -> list[Comparison]:
    """Everything, in the order of the tables."""
    like = Case(objective="n2", rows=0, dim=1024)
    sizes: tuple[int, ...] = (128, 256, 512)
    large = 1024
    if device != "cpu":
        like, sizes = replace(like, dim=8192, device=device, dtype="bfloat16"), ()
    found = []
    for rows in sizes:
        found.append(report(measure_peaks(take_turns(replace(like, rows=rows), limit_s=25))))
    case = replace(like, rows=large)
    if all(fits(case, label) for label in PEAKS) or device != "cpu":
        found.append(report(measure_peaks(take_turns(case, limit_s=25))))
    else:
        found.append(report(compare_alone(case, list(losses_of("n2")))))
    for peer in found[-1].too_large:
        fitting = [rows for rows in range(64, large, 64) if fits(replace(case, rows=rows), peer)]
        if fitting and fitting[-1] not in sizes:
            found.append(report(compare_alone(replace(case, rows=fitting[-1]), ["ours", peer])))
    for rows in (256, 1024, 4096):
        found.append(report(measure_peaks(take_turns(replace(like, objective="n", rows=rows), limit_s=10))))
    for objective in ("n:4", "faces", "clip"):
        found.append(report(measure_peaks(take_turns(replace(like, objective=objective, rows=1024), limit_s=5))))
    return found


def agreement(device: str) -> list[dict[str, Any]]:
    """Greatest relative difference, in norm, of our n2's loss and gradients from the package's, in float32."""
    records = []
    for modalities, rows in ((3, 64), (4, 8)):
        case = Case(objective="n2", rows=rows, dim=256, modalities=modalities, device=device)
        results = []
        for loss in (losses_of("n2")["ours"], losses_of("n2")["package"]):
            reps_ND, scale = case.inputs()
            value = step(loss, reps_ND, scale)[1]
            results.append([value, scale.grad, *(rep_ND.grad for rep_ND in reps_ND)])
        errors = [((ours - theirs).norm() / theirs.norm()).item() for ours, theirs in zip(*results, strict=True)]
        error = reduce(lambda most, one: one if not one <= most else most, errors)  # nan counts as the greatest
        records.append({"modalities": modalities, "rows": rows, "dim": case.dim, "relative_error": error})
        print(f"agreement, {modalities} modalities, N = {rows}: relative error {error:.1e}", flush=True)
    return records


def report(found: Comparison) -> Comparison:
    """Print a line of progress."""
    case = found.case
    times = ", ".join(f"{label} {seconds_text(values)}" for label, values in found.seconds.items())
    print(f"{case.objective}, N = {case.rows}, D = {case.dim}: {times}", flush=True)
    return found


def seconds_text(values: Sequence[float]) -> str:
    value = median(values)
    return f"{value * 1e3:.1f} ms" if value < 0.1 else f"{value:.2f} s"


def ratio_text(values: Sequence[float], ours: Sequence[float]) -> str:
    rounds = [value / own for value, own in zip(values, ours, strict=True)]
    spread = f" ({min(rounds):.1f} to {max(rounds):.1f})" if len(rounds) > 1 else ""
    return f"**{median(values) / median(ours):.1f}**{spread}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines] + [""]


def comparison_table(comparisons: Sequence[dict[str, Any]], peers: Sequence[str]) -> list[str]:
    """Time and memory of ours and its peers, a line a case."""
    header = ["negatives", "N", "runs", "ours", *peers, *(f"{peer} / ours" for peer in peers)]
    header += ["memory: ours", *peers, *(f"{peer} / ours" for peer in peers)]
    rows = []
    for one in comparisons:
        seconds, peaks, too_large = one["seconds"], one["peak_bytes"], one["too_large"]
        runs = "1, alone" if one["alone"] else str(len(seconds["ours"]))
        line = [one["case"]["objective"], str(one["case"]["rows"]), runs, seconds_text(seconds["ours"])]
        absent = {peer: f"no room: {too_large[peer] / 1e9:.0f} GB" if peer in too_large else "" for peer in peers}
        line += [seconds_text(seconds[peer]) if peer in seconds else absent[peer] for peer in peers]
        line += [ratio_text(seconds[peer], seconds["ours"]) if peer in seconds else "" for peer in peers]
        for label in ("ours", *peers):
            line.append(f"{peaks[label] / 1e6:,.0f} MB" if label in peaks else "")
        for peer in peers:
            line.append(f"**{peaks[peer] / peaks['ours']:.1f}**" if {peer, "ours"} <= set(peaks) else "")
        rows.append(line)
    return markdown(header, rows)


def rate_table(comparisons: Sequence[dict[str, Any]]) -> list[str]:
    """What share of the matmul rate n2 reaches."""
    rows = []
    for one in comparisons:
        rate, size, dim = median(one["matmul_gflops"]), one["case"]["rows"], one["case"]["dim"]
        product = 2 * size**3 * dim / 1e9 / median(one["seconds"]["ours"])  # GFLOP/s that one pass over the cube adds
        rows.append([str(size), f"{rate:,.0f}", *(f"{count * product / rate:.0%}" for count in (3, 4, 5))])
    return markdown(["N", "matmul GFLOP/s", "3 x 2 N^3 D", "4 x 2 N^3 D", "5 x 2 N^3 D"], rows)


def table(record: dict[str, Any]) -> str:
    """The Markdown of one device's figures."""
    comparisons = record["comparisons"]

    def of(*objectives: str) -> list[dict[str, Any]]:
        return [one for one in comparisons if one["case"]["objective"] in objectives]

    shape = comparisons[0]["case"]
    lines = [
        f"### {record['hardware']}",
        "",
        f"{record['date']}, torch {record['torch']}, symile {record['symile']}. Three modalities, D = {shape['dim']}, "
        f"{shape['dtype']}; {record['seconds']} s in all. Forward and backward, medians of alternating runs; ratios of "
        "the medians, and the least and greatest of a round. The first round is discarded where it takes less than "
        f"{WARM_S:.0f} s. *Alone*: one run each, in a fresh process. Memory is the peak of one run in a fresh process "
        "beyond what that held before: the inputs and their gradients included, libraries not.",
        "",
        "All combinations, against `symile.Symile('n_squared')` and one einsum of the whole cube. *No room*: its "
        f"estimated peak is more than {MEMORY_SHARE:.0%} of the {record['free_bytes'] / 1e9:.0f} GB of free memory, "
        "so it is compared at the largest multiple of 64 rows that fits, if that is not a size of the table anyway.",
        "",
        *comparison_table(of("n2"), ["package", "einsum"]),
        "Share of the rate of a square float32 matmul in the same run that our n2 reaches. 3 x 2 N^3 D operations are "
        "the least that there are (forward, and two products backward) and what is done where the cube fits in the "
        "memory budget; 4 x where all of it is computed again; 5 x is more than is ever done here.",
        "",
        *rate_table(of("n2")),
        "O(N) negatives, against `symile.Symile('n')` and an einsum for each anchor:",
        "",
        *comparison_table(of("n", "n:4", "faces"), ["package", "einsum"]),
        "Pairwise CLIP, against cosines and `F.cross_entropy`:",
        "",
        *comparison_table(of("clip"), ["plain"]),
        "n2 against the package in float32, the greatest relative difference (norm) of the loss and its gradients:",
        "",
        *markdown(
            ["modalities", "N", "D", "difference"],
            [
                [str(one["modalities"]), str(one["rows"]), str(one["dim"]), f"{one['relative_error']:.1e}"]
                for one in record["agreement"]
            ],
        ),
    ]
    return "\n".join(lines)


def tables() -> str:
    """Every measured device."""
    paths = sorted((RESULTS / "objectives").glob("*.json"))
    return "\n".join(table(json.loads(path.read_text(encoding="utf-8"))) for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where to measure")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    (RESULTS / "objectives").mkdir(parents=True, exist_ok=True)
    agreed = True
    if not arguments.table:
        if PackageSymile is None:
            sys.exit(MISSING)
        start = time.perf_counter()
        torch.set_num_threads(cores())
        gpu = "no GPU" if arguments.device == "cpu" else torch.cuda.get_device_name()
        free = free_bytes(arguments.device)
        compared = agreement(arguments.device)
        agreed = all(one["relative_error"] < TOLERANCE for one in compared)
        record = {
            "hardware": hardware(gpu),
            "date": datetime.date.today().isoformat(),
            "torch": torch.__version__,
            "symile": importlib.metadata.version("symile"),
            "free_bytes": free,
            "agreement": compared,
            "comparisons": [asdict(one) for one in measure(arguments.device)],
            "seconds": round(time.perf_counter() - start),
        }
        slug = "cpu" if arguments.device == "cpu" else re.sub("[^a-z0-9]+", "-", gpu.lower()).strip("-")
        path = RESULTS / "objectives" / f"{slug}.json"
        path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    text = tables()
    (RESULTS / "objectives.md").write_text(text, encoding="utf-8")
    print(text)
    if not agreed:
        sys.exit(f"n2 differs from the package by more than {TOLERANCE:g}")


if __name__ == "__main__":
    main()
