"""Puts an exported folder on a hub and opens models from it; a line of JSON each. Run with HF_ENDPOINT set.

python hub_user.py TOKEN push FOLDER NAME [private] [overwrite]
python hub_user.py TOKEN load NAME [REVISION]

Several of these may follow each other, with `then` between.
"""

from __future__ import annotations

import json
import os
import sys
from itertools import groupby
from pathlib import Path

from huggingface_hub.utils.tqdm import disable_progress_bars

import symile_m3
from symile_m3.errors import SymileM3Error
from symile_m3.hubpush import push_folder

disable_progress_bars()
for is_end, words in groupby(sys.argv[1:], lambda word: word == "then"):
    if is_end:
        continue
    token, what, *rest = words
    os.environ["HF_TOKEN"] = token
    try:
        if what == "push":
            options = {"private": "private" in rest[2:], "overwrite": "overwrite" in rest[2:]}
            line = {"address": push_folder(Path(rest[0]), rest[1], **options)}
        else:
            model = symile_m3.load(rest[0], revision=rest[1] if rest[1:] else None)
            line = {"rep": model.encode_texts(model.vocabulary[0])[0].tolist()}
    except SymileM3Error as error:
        line = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(line), flush=True)
