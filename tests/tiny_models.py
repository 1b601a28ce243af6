"""Whisper, XLM-R and CLIP with random weights, a few kilobytes each, saved as their libraries save the real ones."""

from __future__ import annotations

import json
from pathlib import Path

import open_clip
import torch
import transformers
from safetensors.torch import save_file

CLIP_CONFIG = {
    "embed_dim": 12,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 24, "head_width": 8, "patch_size": 16},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
PIXELS = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "interpolation": "bicubic", "resize_mode": "shortest"}


def save_clip(folder: Path, *, seed: int = 0, vision: dict[str, object] | None = None) -> Path:
    """A folder as open_clip pushes it to the Hub; `vision` takes the place of the image encoder's configuration."""
    folder.mkdir(parents=True)
    torch.manual_seed(seed)
    config = {**CLIP_CONFIG, **({"vision_cfg": vision} if vision else {})}
    model = open_clip.model.CLIP(**config)
    with torch.no_grad():  # freshly made ones differ too little between inputs
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": PIXELS}))
    return folder


def save_whisper(folder: Path, *, bands: int = 80, seconds: int = 6, seed: int = 0) -> Path:
    """A folder as `save_pretrained` writes it; the encoder hears `seconds` where the real one hears 30."""
    torch.manual_seed(seed)
    config = transformers.WhisperConfig(
        d_model=16,
        encoder_layers=2,
        encoder_attention_heads=2,
        encoder_ffn_dim=32,
        decoder_layers=1,
        decoder_attention_heads=2,
        decoder_ffn_dim=32,
        num_mel_bins=bands,
        max_source_positions=50 * seconds,
        vocab_size=40,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        init_std=0.3,
    )
    transformers.WhisperForConditionalGeneration(config).save_pretrained(folder)
    transformers.WhisperFeatureExtractor(feature_size=bands, chunk_length=seconds).save_pretrained(folder)
    return folder


def save_xlmr(folder: Path, *, seed: int = 0) -> Path:
    """A folder with three layers, saved as the published ones: a masked language model and its tokeniser."""
    torch.manual_seed(seed)
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [(f"▁{letter}", -4.0) for letter in "abcdefg"] + [(letter, -3.0) for letter in "abcdefghijklmnop_"]
    tokeniser = transformers.XLMRobertaTokenizer(vocab=[*pieces, ("▁", -5.0), ("<mask>", 0.0)])
    config = transformers.XLMRobertaConfig(
        vocab_size=len(tokeniser),
        hidden_size=16,
        num_hidden_layers=3,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=130,
        type_vocab_size=1,
        initializer_range=0.3,
        bos_token_id=0,
        pad_token_id=1,
        eos_token_id=2,
    )
    transformers.XLMRobertaForMaskedLM(config).save_pretrained(folder)
    tokeniser.save_pretrained(folder)
    return folder
