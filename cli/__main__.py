"""`python -m symile_m3.cli`."""

from symile_m3.cli.main import run

if __name__ == "__main__":
    run()
