"""Opens each pool that it is given by its spec and makes its images; a line of JSON each. Run with HF_ENDPOINT set.

python hub_client.py SPEC[+IMAGES_PER_CLASS]...

The garbage collector runs where the pools ask for it and nowhere else, so that what they leave open is seen.
"""

from __future__ import annotations

import gc
import hashlib
import json
import os
import pickle
import sys

from huggingface_hub.hf_file_system import HfFileSystemStreamFile

from symile_m3.errors import SymileM3Error
from symile_m3.images import open_image_pool
from symile_m3.media import ImageOptions, ImagePool

gc.disable()
for argument in sys.argv[1:]:
    token, _, rest = argument.rpartition(" ")
    os.environ["HF_TOKEN"] = token.removeprefix("HF_TOKEN=")
    spec, _, limit = rest.partition("+")
    try:
        pool = open_image_pool(spec, ImageOptions(size_px=40, per_class=int(limit) if limit else None))
        classes = dict(pool.classes())
        recipes = pool.recipes(list(classes))
        elsewhere: ImagePool = pickle.loads(pickle.dumps(pool))
        made = [hashlib.sha256(elsewhere.make(recipe)).hexdigest() for recipe in recipes]
        first = recipes[0]
        line = {
            "classes": classes,
            "made": made,
            "source": first.source,
            "licence": first.licence,
            "attributes": dict(first.attributes),
        }
    except SymileM3Error as error:
        line = {"error": str(error)}
    streams = [found for found in gc.get_objects() if isinstance(found, HfFileSystemStreamFile)]
    line["streams"] = sum(bool(stream._exit_stack._exit_callbacks) for stream in streams)
    print(json.dumps(line), flush=True)
