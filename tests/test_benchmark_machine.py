"""What benchmarks say that they ran on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"


@pytest.mark.parametrize(
    ("usable", "there", "said"), [(1, 1, "1 core"), (1, 4, "1 of 4 cores"), (3, 4, "3 of 4 cores"), (4, 4, "4 cores")]
)
def test_cores_are_counted_as_usable_of_those_there_are(usable: int, there: int, said: str) -> None:
    program = f"from _machine import shown_cores; print(shown_cores({usable}, {there}))"
    done = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == said


def test_a_process_that_may_use_one_core_says_so() -> None:
    program = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); import _machine as m; "
    program += "print(m.hardware('no GPU'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=BENCHMARKS, capture_output=True, text=True, check=True)
    there = os.cpu_count() or 1
    assert done.stdout.strip().endswith(", 1 core, no GPU" if there == 1 else f", 1 of {there} cores, no GPU")
