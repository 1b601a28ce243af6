"""Comparisons: objectives, seeds and datasets at equal budget, tuned with equal effort, in parallel processes."""

from symile_m3.comparison.declared import DeclaredQuestion, compare_declared
from symile_m3.comparison.jobs import JobConfig
from symile_m3.comparison.question import Over, Question
from symile_m3.comparison.study import compare
from symile_m3.comparison.tuning import TuneConfig

__all__ = ["DeclaredQuestion", "JobConfig", "Over", "Question", "TuneConfig", "compare", "compare_declared"]
