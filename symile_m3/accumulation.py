"""A large batch in parts: the gradients of the loss of the whole batch, with the graph of one part at a time.

A contrastive loss is no sum over parts of the batch. So all parts are encoded without a graph, the loss of all
representations together gives each its gradient, and every part is then encoded once more, with the same dropout
and noise, to carry these gradients on to the weights (Gao et al. 2021, arXiv:2101.06983).
Suffixes: B rows of this process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import torch
from torch import Tensor, nn

from symile_m3.model import Inputs, Model
from symile_m3.processes import Place
from symile_m3.towers.text import TokenisedTexts
from symile_m3.towers.tokens import Tokens


class Given:
    """Inputs on their way to the towers, which nothing between looks into."""

    def __init__(self, inputs: Inputs) -> None:
        self.inputs = inputs


class Towers(nn.Module):
    """What a step differentiates: the representations, the scale of their logits, and what the objective learns."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, given: Given) -> tuple[list[Tensor], Tensor, dict[str, Tensor]]:
        """(B, D) representations of each modality, the () scale, and the tensors of the objective's head."""
        head = {name: value.view_as(value) for name, value in self.model.head.items()}
        return self.model(given.inputs), self.model.log_scale.exp(), head


def part_of(inputs: Inputs, start: int, stop: int) -> Inputs:
    """Some rows of a batch."""

    def cut(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value[start:stop]
        if isinstance(value, TokenisedTexts):
            first = int(value.starts[start]) if start < len(value.starts) else len(value.row_ids)
            last = int(value.starts[stop]) if stop < len(value.starts) else len(value.row_ids)
            return TokenisedTexts(
                row_ids=value.row_ids[first:last],
                starts=value.starts[start:stop] - first,
                word_counts=value.word_counts[start:stop],
            )
        if isinstance(value, Tokens):
            return replace(value, ids_BT=value.ids_BT[start:stop], mask_BT=value.mask_BT[start:stop])
        if isinstance(value, tuple):
            return tuple(cut(one) for one in value)
        return {name: cut(one) for name, one in value.items()} if isinstance(value, Mapping) else value

    return replace(inputs, **{item.name: cut(getattr(inputs, item.name)) for item in fields(inputs)})


def parts_of(inputs: Inputs, rows: int, size: int) -> list[Inputs]:
    """A batch of `rows` rows in parts of `size`, the last perhaps smaller; 0 leaves it whole."""
    if not size or size >= rows:
        return [inputs]
    return [part_of(inputs, start, min(start + size, rows)) for start in range(0, rows, size)]


def moved(inputs: Inputs, device: torch.device) -> Inputs:
    """The same inputs on a device."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        if isinstance(value, TokenisedTexts | Tokens):
            return replace(value, **{item.name: move(getattr(value, item.name)) for item in fields(value)})
        if isinstance(value, tuple):
            return tuple(move(one) for one in value)
        return {name: move(one) for name, one in value.items()} if isinstance(value, Mapping) else value

    if device.type == "cpu":
        return inputs
    return replace(inputs, **{item.name: move(getattr(inputs, item.name)) for item in fields(inputs)})


def add_gradients(
    place: Place,
    towers: nn.Module,
    parts: Sequence[Inputs],
    loss_of: Callable[[Sequence[Tensor], Tensor, Mapping[str, Tensor]], Tensor],
    seeds: Sequence[int],
) -> Tensor:
    """Add the gradients of the loss of a whole batch to the weights.

    Args:
        towers: `Towers`, set up by `place`.
        parts: the batch.
        loss_of: the loss of the representations of all parts, one after another, of the scale, and of the tensors that
            the objective learns beside.
        seeds: of dropout and noise, one a part.

    Returns:
        () the loss.
    """
    if len(parts) == 1:
        with place.seeded(seeds[0]):
            reps_BD, scale, head = towers(Given(parts[0]))
        loss = loss_of(reps_BD, scale, head)
        place.backward(loss)
        return loss.detach()
    cached: list[list[Tensor]] = []
    for part, seed in zip(parts, seeds, strict=True):
        with torch.no_grad(), place.seeded(seed):
            reps, scale, head = towers(Given(part))
        cached.append(reps)
    reps_BD = [torch.cat(of_parts).requires_grad_() for of_parts in zip(*cached, strict=True)]
    learned = {"": scale, **head}
    learned = {name: value.detach().requires_grad_() for name, value in learned.items()}
    loss = loss_of(reps_BD, learned[""], {name: learned[name] for name in head})
    modalities = len(reps_BD)
    grads = torch.autograd.grad(loss, [*reps_BD, *learned.values()])
    grads_BD, learned_grads = grads[:modalities], grads[modalities:]
    sizes = [len(reps[0]) for reps in cached]
    del cached, reps_BD
    by_part = zip(*(torch.split(grad_BD, sizes) for grad_BD in grads_BD), strict=True)
    for number, (part, seed, grads_of_part) in enumerate(zip(parts, seeds, by_part, strict=True)):
        last = number == len(parts) - 1
        with place.alone(towers, enabled=not last):
            with place.seeded(seed):
                reps, scale, head = towers(Given(part))
            # A function with exactly these gradients.
            pairs = list(zip(reps, grads_of_part, strict=True))
            if last:
                pairs += list(zip([scale, *head.values()], learned_grads, strict=True))
            place.backward(torch.stack([(value * grad).sum() for value, grad in pairs]).sum())
    return loss.detach()
