"""The synthetic experiment: vectors of bits of which only all together say what each is.

The process and its exact information need no torch; `symile_m3.synthetic.experiment` trains on it.
"""

from symile_m3.synthetic.information import Information, best_accuracy, best_from_one, best_with_missing
from symile_m3.synthetic.process import PAPER_P, XorProcess

__all__ = ["PAPER_P", "Information", "XorProcess", "best_accuracy", "best_from_one", "best_with_missing"]
