"""XLM-RoBERTa as the paper uses it: its embeddings and first layer, trained; the other layers are not loaded.

Suffixes: B texts, T tokens, D features.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from symile_m3.errors import TrainingError
from symile_m3.towers.spec import TowerSpec
from symile_m3.towers.tokens import Tokens
from symile_m3.towers.weights import find_weights


class XlmrTokeniser:
    """The tokeniser that comes with the weights, padding texts to the longest of a batch."""

    def __init__(self, spec: TowerSpec) -> None:
        import transformers

        folder = find_weights(spec).model
        try:
            self._tokenise = transformers.AutoTokenizer.from_pretrained(folder)
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise TrainingError(f"{spec}: {folder} has no tokeniser to load ({reason})") from error
        self._longest = transformers.AutoConfig.from_pretrained(folder).max_position_embeddings - 2
        self._spec = spec

    def __call__(self, texts: Sequence[str]) -> Tokens:
        """Tokens (B, T) with the begin and end of each text.

        Raises:
            TrainingError: a text is longer than the model takes.
        """
        found = self._tokenise(list(texts), padding=True, return_tensors="pt", verbose=False)
        ids_BT: Tensor = found["input_ids"]
        if ids_BT.shape[1] > self._longest:
            raise TrainingError(
                f"{self._spec}: a text of {ids_BT.shape[1]} tokens; this model takes {self._longest}; build with fewer "
                "--words"
            )
        return Tokens(ids_BT=ids_BT, mask_BT=found["attention_mask"].bool())


class XlmrText(nn.Module):
    """Embeddings and first layer; means over the tokens of the text, (B, D).

    A missing text is a text of one token of its own, between begin and end.
    """

    def __init__(self, spec: TowerSpec) -> None:
        super().__init__()
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        folder = find_weights(spec).model
        try:
            self.net, report = transformers.XLMRobertaModel.from_pretrained(
                folder, num_hidden_layers=1, add_pooling_layer=False, dtype=torch.float32, output_loading_info=True
            )
        except Exception as error:
            reason = " ".join(str(error).split())[:160]
            raise TrainingError(f"{spec}: {folder} cannot be loaded ({reason})") from error
        if report["missing_keys"] or report["mismatched_keys"]:
            raise TrainingError(f"{spec}: {folder} does not hold the weights of this model")
        config = self.net.config
        self.width = int(config.hidden_size)
        self._ends = (int(config.bos_token_id), int(config.eos_token_id))
        self._padding = int(config.pad_token_id)
        words = self.net.embeddings.word_embeddings
        self.missing_id = words.num_embeddings
        grown = nn.Embedding(self.missing_id + 1, self.width, padding_idx=self._padding)
        with torch.no_grad():
            grown.weight[:-1] = words.weight
            grown.weight[-1].normal_(0, config.initializer_range)
        self.net.embeddings.word_embeddings = grown

    def forward(self, tokens: Tokens, missing_B: Tensor | None = None) -> Tensor:
        """(B, D).

        Args:
            tokens: of the texts.
            missing_B: True where a text is missing.
        """
        ids_BT, mask_BT = tokens.ids_BT, tokens.mask_BT
        if missing_B is not None:
            room = max(0, 3 - ids_BT.shape[1])
            ids_BT, mask_BT = F.pad(ids_BT, (0, room), value=self._padding), F.pad(mask_BT, (0, room))
            text_T = torch.full_like(ids_BT[0], self._padding)
            text_T[:3] = torch.tensor([self._ends[0], self.missing_id, self._ends[1]])
            ids_BT = torch.where(missing_B[:, None], text_T, ids_BT)
            mask_BT = torch.where(missing_B[:, None], torch.arange(len(text_T), device=ids_BT.device) < 3, mask_BT)
        # Positions are counted from the tokens that are no padding.
        ids_BT = ids_BT.masked_fill(~mask_BT, self._padding)
        states_BTD = self.net(input_ids=ids_BT, attention_mask=mask_BT.long()).last_hidden_state
        features_BD: Tensor = (states_BTD * mask_BT[:, :, None]).sum(dim=1) / mask_BT.sum(dim=1, keepdim=True)
        return features_BD


@lru_cache(maxsize=2)
def xlmr_tokeniser(spec: TowerSpec) -> XlmrTokeniser:
    """The tokeniser of a spec, made once."""
    return XlmrTokeniser(spec)
