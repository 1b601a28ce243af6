"""The tables of a comparison, as plain rows, and as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from symile_m3.comparison.datasets import LANGS


@dataclass(frozen=True, kw_only=True, slots=True)
class Rows:
    """A table.

    Attributes:
        title: of it.
        header: one label a column.
        rows: cells, all of them text.
        names: columns at the left that name what the others hold.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    names: int = 1

    def markdown(self) -> str:
        """As Markdown, without the title."""
        lines = [self.header, tuple("---" if i < self.names else "---:" for i in range(len(self.header))), *self.rows]
        return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


def tables(report: Mapping[str, Any]) -> list[Rows]:
    """The tables of a report: accuracies, cost, time to an accuracy, paired differences, tuning, and what failed."""
    declared = "modalities" in report["question"]
    once = report  # the runs of declared modalities are the same at every point
    if declared:
        once = {**report, "points": [{**point, "name": point["dataset"]["name"]} for point in report["points"][:1]]}
    found = [
        retrieval_rows(report) if declared else accuracy_rows(report),
        cost_rows(once),
        reach_rows(once),
        difference_rows(report),
        tuning_rows(report),
        failed_rows(report),
    ]
    return [rows for rows in found if rows.rows]


def markdown(report: Mapping[str, Any]) -> str:
    """All tables of a report, each under its title in bold."""
    return "\n".join(f"**{rows.title}**\n\n{rows.markdown()}" for rows in tables(report))


def accuracy_rows(report: Mapping[str, Any]) -> Rows:
    """Test top-1 of every objective at every point, beside what text alone can reach and the ceilings.

    `passes` says whether the whole interval is above 1/w; `val` is the best validation top-1; `image` and `language`
    are the measured ceilings.
    """
    places = _Places(report)
    rows = []
    for point in report["points"]:
        bounds = point["bounds"]
        for name, result in point["results"].items():
            rows.append(
                (
                    *places.cells(point),
                    name,
                    _share(result["top1"]),
                    _span(result["ci95"]),
                    str(len(result["runs"])),
                    _share(bounds.get("text_only")),
                    {True: "yes", False: "no", None: "-"}[result["passes_text_only"]],
                    _share(result["best_val"]),
                    _share(bounds.get("image_ceiling")),
                    _share(bounds.get("language_ceiling")),
                )
            )
    header = (
        *places.headings,
        "objective",
        "top-1",
        "95% interval",
        "seeds",
        "1/w",
        "passes",
        "val",
        "image",
        "language",
    )
    return Rows(
        title=f"Test top-1, image from audio and text{places.said}",
        header=header,
        rows=tuple(rows),
        names=1 + len(places.headings),
    )


def retrieval_rows(report: Mapping[str, Any]) -> Rows:
    """Test figures of every objective for every retrieval of declared modalities, beside chance.

    `val` is the best validation top-1, of the one retrieval that validation makes.
    """
    rows = tuple(
        (
            point["name"],
            name,
            _share(result["top1"]),
            _span(result["ci95"]),
            _share(result["mrr"]),
            str(len(result["runs"])),
            _share(point["bounds"]["chance"]),
            f"{point['dataset']['candidates']:,}",
            f"{point['dataset']['n']:,}",
            _share(result["best_val"]),
        )
        for point in report["points"]
        for name, result in point["results"].items()
    )
    header = ("", "objective", "top-1", "95% interval", "MRR", "seeds", "chance", "of", "queries", "val")
    return Rows(title="Retrieval on the test samples", header=header, rows=rows, names=2)


def cost_rows(report: Mapping[str, Any]) -> Rows:
    """What the runs took and the settings they had."""
    places = _Places(report)
    of_triples = all("image_lr" in result for point in report["points"] for result in point["results"].values())
    rows = []
    for point in report["points"]:
        for name, result in point["results"].items():
            rows.append(
                (
                    *places.cells(point),
                    name,
                    f"{result['steps']:,}",
                    f"{1000 * result['seconds_a_step']:,.1f}",
                    f"{result['samples_per_s']:,.0f}",
                    f"{result['lr']:.3g}",
                    *([f"{result['image_lr']:.3g}"] if of_triples else []),
                    f"{result['log_scale_offset']:+.2f}",
                )
            )
    header = (
        *places.headings,
        "objective",
        "steps",
        "ms a step",
        "samples/s",
        "lr",
        *(["image lr"] if of_triples else []),
        "log scale",
    )
    work = report["work"]
    threads = f"{work['threads']} thread{'s' if work['threads'] > 1 else ''}"
    title = f"Cost, with {work['jobs']} runs at a time of {threads} each{places.said}"
    return Rows(title=title, header=header, rows=tuple(rows), names=1 + len(places.headings))


def reach_rows(report: Mapping[str, Any]) -> Rows:
    """Mean steps and seconds until the validation top-1 was reached, of those runs that did; none where no run did."""
    places = _Places(report)
    rows = [
        (*places.cells(point), name, f"{to['runs']} of {to['of']}", f"{to['steps']:,.0f}", f"{to['seconds']:,.1f}")
        if (to := result["reach"])["runs"]
        else (*places.cells(point), name, f"0 of {to['of']}", "-", "-")
        for point in report["points"]
        for name, result in point["results"].items()
    ]
    some = any(result["reach"]["runs"] for point in report["points"] for result in point["results"].values())
    header = (*places.headings, "objective", "runs", "steps", "seconds")
    title = f"Time to a validation top-1 of {report['question']['reach']:g}{places.said}"
    return Rows(title=title, header=header, rows=tuple(rows) if some else (), names=1 + len(places.headings))


def difference_rows(report: Mapping[str, Any]) -> Rows:
    """Paired differences of one objective to each other: Symile, or the first that was named; the report has all."""
    places = _Places(report)
    pairs = {tuple(pair.split(" - ")) for point in report["points"] for pair in point["differences"]}
    named = sorted(report["question"]["objectives"], key=lambda name: name != "symile")
    one = next((name for name in named if any(name in pair for pair in pairs)), "")
    rows = []
    for point in report["points"]:
        for pair, found in point["differences"].items():
            first, second = pair.split(" - ")
            if one in (first, second):
                sign, other = (1, second) if one == first else (-1, first)
                low, high = sorted(sign * bound for bound in found["ci95"])
                difference = f"{sign * found['top1']:+.3f}"
                rows.append((*places.cells(point), f"{one} - {other}", difference, f"{low:+.3f} to {high:+.3f}"))
    header = (*places.headings, "objectives", "difference", "95% interval")
    others = "" if len(pairs) < 2 else f" of {one} to the others (of all pairs in the JSON)"
    title = f"Differences of top-1{others}, same queries and seeds{places.said}"
    return Rows(title=title, header=header, rows=tuple(rows), names=1 + len(places.headings))


def tuning_rows(report: Mapping[str, Any]) -> Rows:
    """What was chosen for each objective, of how many trials, and what it gave."""
    rows = []
    for dataset, objectives in report["tuning"].items():
        for name, record in objectives.items():
            scores = [trial["val_top1"] for trial in record["trials"]]
            known = [score for score in scores if score is not None]
            rows.append(
                (
                    dataset.rpartition("-")[0],
                    name,
                    str(len(scores)),
                    f"{record['steps']:,}",
                    f"{record['chosen']['rate_factor']:.3g}",
                    f"{record['chosen']['log_scale_offset']:+.2f}",
                    _share(max(known)),
                    _share(scores[0]),
                    str(len(scores) - len(known)),
                )
            )
    header = ("data", "objective", "trials", "steps", "rates x", "log scale", "val", "val as it was", "failed")
    return Rows(title="Tuning on the validation samples", header=header, rows=tuple(rows), names=2)


def failed_rows(report: Mapping[str, Any]) -> Rows:
    """The runs that failed, and why."""
    rows = tuple((failure["run"], failure["error"]) for failure in report["failed"])
    return Rows(title="Failed", header=("run", "why"), rows=rows, names=2)


class _Places:
    """The columns that say where a row is of, and no more of them than that takes; the title says what all share."""

    def __init__(self, report: Mapping[str, Any]) -> None:
        points = report["points"]
        over = report["question"]["over"]
        pairs = {(point["name"], point["value"]) for point in points}
        names = {name for name, _ in pairs}
        told = over is not None and len(pairs) == len({value for _, value in pairs})  # the value tells which dataset
        self._name = len(names) > 1 and not told
        counts = {point["dataset"]["languages"] for point in points if "languages" in point["dataset"]}
        built = all(name.startswith(LANGS) for name in names)  # and named after their languages
        self._languages = len(counts) > 1 and self._name and not built
        self._value = over is not None
        self.headings = (
            *(["data"] if self._name else []),
            *(["languages"] if self._languages else []),
            *([over["key"]] if over else []),
        )
        said = [points[0]["name"]] if len(names) == 1 else []
        said += [f"{languages} languages" for languages in counts] if len(counts) == 1 else []
        self.said = f" ({', '.join(said)})" if said else ""

    def cells(self, point: Mapping[str, Any]) -> tuple[str, ...]:
        return (
            *([point["name"]] if self._name else []),
            *([str(point["dataset"]["languages"])] if self._languages else []),
            *([str(point["value"])] if self._value else []),
        )


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _span(ci95: Sequence[float]) -> str:
    return f"{ci95[0]:.3f} to {ci95[1]:.3f}"
