"""The command line, with its clients pointed at the server at $WEB_TEST_URL: `web_build.py build ...`.

`web_build.py translate LANGUAGE COUNT` translates that many names. Worker processes import this file too.
"""

from __future__ import annotations

import os
import sys

from google_server import point_clients

point_clients(os.environ["WEB_TEST_URL"])

if __name__ == "__main__":
    if sys.argv[1] == "translate":
        from symile_m3.lexicon.google import open_google

        letters = "abdefghilm"  # whose translations differ
        words = [f"name {letters[i // 100]}{letters[i // 10 % 10]}{letters[i % 10]}" for i in range(int(sys.argv[3]))]
        print("\n".join(open_google().translate(words, sys.argv[2])))
    else:
        from symile_m3.cli.main import run

        run()
