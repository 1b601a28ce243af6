"""A dataset as NVIDIA Energon reads it: `energon_reader.py DIR SPLIT...`, one line of JSON a sample."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
import soundfile
from megatron.energon import (
    Cooker,
    DefaultTaskEncoder,
    Sample,
    WorkerConfig,
    basic_sample_keys,
    get_loader,
    get_val_dataset,
    stateless,
)
from PIL import Image


@dataclass
class Triple(Sample):
    """What a cooker makes of the files of a sample."""

    image: Any
    wave: Any
    rate_hz: int
    text: str
    record: dict[str, Any]


@stateless
def cook(sample: dict[str, Any]) -> Triple:
    wave, rate_hz = soundfile.read(io.BytesIO(sample["flac"]), dtype="float32")
    return Triple(
        **basic_sample_keys(sample),
        image=np.asarray(Image.open(io.BytesIO(sample["jpg"]))),
        wave=wave,
        rate_hz=rate_hz,
        text=sample["txt"].decode(),
        record=json.loads(sample["json"]),
    )


class Encoder(DefaultTaskEncoder):
    decoder = None  # bytes: its own decoder of audio takes PyAV
    cookers = [Cooker(cook)]  # noqa: RUF012


for split in sys.argv[2:]:
    dataset = get_val_dataset(
        sys.argv[1],
        split_part=split,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=0),
        batch_size=None,
        task_encoder=Encoder(),
    )
    for sample in get_loader(dataset):
        row = {
            "key": sample.__key__,
            "frames": len(sample.wave),
            "rate_hz": sample.rate_hz,
            "pixels": int(sample.image.sum()),
            "text": sample.text,
            "record": sample.record,
        }
        print(json.dumps(row))
