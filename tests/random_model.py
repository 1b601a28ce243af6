"""A small model for tests, with random weights and something learned for every missing modality."""

import torch

from symile_m3.model import Model
from symile_m3.towers.audio import AudioHead
from symile_m3.towers.image import ImageHead
from symile_m3.towers.text import TextTower

DIM = 8


def random_model(objective: str, text_rows: int, *, image: int = 6, audio: int = 4, seed: int = 0) -> Model:
    """In training mode, in which it adds noise and drops features."""
    torch.manual_seed(seed)
    towers = {
        "image": ImageHead(image, 6, DIM, dropout=0.3, noise=0.3, indicator=3),
        "audio": AudioHead(audio, 32, DIM, noise=0.7, indicator=3),
        "text": TextTower(text_rows, DIM, learns_missing=True),
    }
    return Model(towers, objective, dim=DIM)


@torch.no_grad()
def standin(model: Model, modality: str) -> torch.Tensor:
    """(D,) what the tower makes of a missing one, worked out from its parts."""
    tower = model.towers[modality]
    if isinstance(tower, TextTower):
        return tower.norm(tower.missing_D)
    features_F = (tower.standin_F - tower.mean_F) / tower.std_F
    layers = tower.layers.eval()
    return layers(torch.cat([features_F, tower.indicator[1]])[None])[0]
