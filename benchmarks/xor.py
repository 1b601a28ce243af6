"""The synthetic experiment at the paper's settings, and parities, through the console script.

    python benchmarks/xor.py                      every setting, one after the other
    python benchmarks/xor.py sweep parity8        some of them
    python benchmarks/xor.py --table              the table of what has been measured

The figures of all settings go to benchmarks/results/xor.json, with the hardware, the date and the seconds of each
command; the tables are benchmarks/results/xor.md, and the plots of the sweeps docs/xor-*.png. Pairwise CLIP is
trained in the same run from the same start, on the same samples and batches.
"""

from __future__ import annotations

import argparse
import datetime
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from _machine import hardware

RESULTS = Path(__file__).parent / "results"
PLOTS = Path(__file__).parents[1] / "docs"
SETTINGS: dict[str, list[str]] = {  # name -> arguments of `symile-m3 xor`
    "sweep": [],
    "sweep-c": ["--predict", "c"],
    "missing": ["--p", "1", "--missing-p", "0.5"],
    "parity8": ["--modalities", "8"],
    "parity8-missing": ["--modalities", "8", "--missing-p", "0.2"],
    "parity8-5-bits": ["--modalities", "8", "--dim", "5"],
}
INFORMATION = {
    "first_last": "I(a;c)",
    "between_last": "I(b;c)",
    "first_between_given_last": "I(a;b\\|c)",
    "between_last_given_first": "I(b;c\\|a)",
    "total_correlation": "TC",
}


def measure(name: str) -> dict[str, Any]:
    """Run one setting through the console script."""
    words = [*SETTINGS[name], *(["--plot", str(PLOTS / f"xor-{name}.png")] if name.startswith("sweep") else [])]
    script = Path(sys.executable).with_name("symile-m3")
    with tempfile.TemporaryDirectory(prefix="symile-m3-xor-") as folder:
        report = Path(folder) / "report.json"
        start, cpu_start = time.perf_counter(), _cpu_seconds()
        subprocess.run([str(script), "xor", *words, "--json", str(report)], check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        found = json.loads(report.read_text(encoding="utf-8"))
    found.pop("plot", None)
    return {
        "command": " ".join(["symile-m3", "xor", *SETTINGS[name]]),
        "hardware": hardware(),
        "date": datetime.date.today().isoformat(),
        "seconds": round(seconds, 1),
        "cpu_seconds": round(_cpu_seconds() - cpu_start, 1),  # of all processes, whatever else ran beside them
        "report": found,
    }


def _measured(path: Path) -> dict[str, Any]:
    """The records there are; read again before each is added, as two settings may be measured side by side."""
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    return found


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tables(records: dict[str, dict[str, Any]]) -> str:
    """Every measured setting as Markdown."""
    lines: list[str] = []
    for name in SETTINGS:
        if name in records:
            lines += [*_setting(name, records[name]), ""]
    if "sweep" in records:
        lines += ["Exact information of the sweep, in nats:", "", *_information(records["sweep"]["report"])]
    return "\n".join(lines).rstrip() + "\n"


def _setting(name: str, record: dict[str, Any]) -> Iterator[str]:
    report = record["report"]
    config, process = report["config"], report["process"]
    yield (
        f"**{name}**: `{record['command']}`, {record['seconds']:.0f} s ({record['cpu_seconds']:.0f} s of "
        f"processor time). Top-1 of {report['predicted']} from the "
        f"{len(report['given'])} others, d = {process['dim']}, mean of {config['seeds']} seeds; "
        f"{config['steps']} steps of {config['batch']:,}. {record['hardware']}, {record['date']}."
    )
    names = list(report["points"][0]["results"])
    yield ""
    yield "| p | " + " | ".join(f"{name} (95%)" for name in names) + " | best from all | best from pairs |"
    yield "|---" * (3 + len(names)) + "|"
    for point in report["points"]:
        cells = [f"{point['p']:g}"]
        for name_ in names:
            result = point["results"][name_]
            cells.append(f"{result['top1']:.3f} ({result['ci95'][0]:.3f} to {result['ci95'][1]:.3f})")
        yield "| " + " | ".join([*cells, f"{point['best']['all']:.3f}", f"{point['best']['pairs']:.3f}"]) + " |"
    for point in report["points"]:
        yield from _hidden(point, names)


def _hidden(point: dict[str, Any], names: list[str]) -> Iterator[str]:
    if not any("hidden" in point["results"][name] for name in names):
        return
    yield ""
    yield "| vectors missing of the query | queries | " + " | ".join(names) + " | best there can be |"
    yield "|---" * (3 + len(names)) + "|"
    groups = [point["results"][name]["hidden"]["by_missing"] for name in names]
    for of_objectives in zip(*groups, strict=True):
        first = of_objectives[0]
        found = " | ".join(f"{group['top1']:.3f}" for group in of_objectives)
        yield f"| {first['missing']} | {first['n']:,} | {found} | {first['best']:.3f} |"


def _information(report: dict[str, Any]) -> Iterator[str]:
    yield "| p | " + " | ".join(INFORMATION.values()) + " |"
    yield "|---" * (1 + len(INFORMATION)) + "|"
    for point in report["points"]:
        values = " | ".join(f"{point['information'][field]:.4f}" for field in INFORMATION)
        yield f"| {point['p']:g} | {values} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", nargs="*", choices=[*SETTINGS, []], help="which to measure; by default all")
    parser.add_argument("--table", action="store_true", help="measure nothing")
    arguments = parser.parse_args()
    path = RESULTS / "xor.json"
    for name in [] if arguments.table else arguments.settings or list(SETTINGS):
        record = measure(name)
        records = {**_measured(path), name: record}
        path.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    text = tables(_measured(path))
    (RESULTS / "xor.md").write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
