"""The configuration of every METRO-T0 network: one model type, ``fairseq_t5``, for published folders and ours.

>>> MetroT0Config(d_model=64, d_kv=16, d_ff=128, num_heads=4)   # the rest as in METRO-T0 base
"""

from __future__ import annotations

from copy import copy
from typing import Any

from transformers import PreTrainedConfig

AUXILIARY_SHARINGS = ("none", "token", "token_pos", "token_pos_norm")
RTD_HEADS = ("none", "simple", "roberta")
RTD_LOCATIONS = ("encoder", "decoder")
INITIALIZATIONS = ("published", "clean")


class MetroT0Config(PreTrainedConfig):
    """Shape and settings of the main encoder-decoder and, for pretraining, of the auxiliary model and the RTD head.

    Field names down to ``decoder_start_token_id`` are those of the published ``config.json`` files; defaults are
    METRO-T0 base (official ``transformer_t5_base_rpe``).

    Args:
        vocab_size: rows of the embedding, sentinels included.
        d_model: width of the hidden states.
        d_kv: width of one attention head; ``num_heads * d_kv`` must be ``d_model``.
        d_ff: width of the feed-forward layers.
        num_layers: encoder layers.
        num_decoder_layers: decoder layers; as many as encoder layers when None.
        num_heads: attention heads.
        relative_attention_num_buckets: rows of an encoder layer's relative bias table.
        relative_attention_max_distance: distance from which all pairs share the outermost bucket.
        max_positions: positions between which the relative bias tells distances apart (see
            ``attention.relative_buckets``).
        dropout_rate: dropout on embeddings, attention probabilities and sub-layer outputs.
        layer_norm_epsilon: epsilon of every LayerNorm.
        decoder_start_token_id: decoder start in finetuning and generation (``</s>``); pretraining starts with
            ``mask_token_id``.
        num_sentinel_tokens: ids at the end of the vocabulary that no text produces; the first is the mask token.
        num_positions: longest sequence the position tables hold, in tokens (two rows more: padding and the offset).
        num_auxiliary_layers: layers of the auxiliary model.
        auxiliary_sharing: what the auxiliary model shares with the main one: ``none``, ``token`` (embedding),
            ``token_pos`` (and encoder positions), ``token_pos_norm`` (and the encoder's embedding LayerNorm).
        auxiliary_dropout_rate: dropout of the auxiliary model (0 in every published METRO recipe).
        rtd_head: replaced token detection head: ``none``, ``simple`` (one linear layer) or ``roberta`` (two).
        rtd_location: whose hidden states the head reads, ``encoder`` (the paper's choice) or ``decoder``.
        initialization: ``published`` (as the released code ends up, quirk included) or ``clean``.

    Raises:
        ValueError: a field that is outside its choices or does not fit the others.
    """

    model_type = "fairseq_t5"
    keys_to_ignore_at_inference = ["past_key_values"]  # noqa: RUF012
    attribute_map = {  # noqa: RUF012
        "hidden_size": "d_model",
        "num_attention_heads": "num_heads",
        "num_hidden_layers": "num_layers",
        "head_dim": "d_kv",
    }

    def __init__(
        self,
        vocab_size: int = 33280,
        d_model: int = 768,
        d_kv: int = 64,
        d_ff: int = 3072,
        num_layers: int = 12,
        num_decoder_layers: int | None = None,
        num_heads: int = 12,
        relative_attention_num_buckets: int = 32,
        relative_attention_max_distance: int = 128,
        max_positions: int = 512,
        dropout_rate: float = 0.1,
        layer_norm_epsilon: float = 1e-5,
        pad_token_id: int = 1,
        bos_token_id: int = 0,
        eos_token_id: int = 2,
        decoder_start_token_id: int = 2,
        use_cache: bool = True,
        num_sentinel_tokens: int = 512,
        num_positions: int = 1024,
        num_auxiliary_layers: int = 4,
        auxiliary_sharing: str = "token_pos_norm",
        auxiliary_dropout_rate: float = 0.0,
        rtd_head: str = "roberta",
        rtd_location: str = "encoder",
        initialization: str = "published",
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.d_model = d_model
        self.d_kv = d_kv
        self.d_ff = d_ff
        self.num_layers = num_layers
        self.num_decoder_layers = num_layers if num_decoder_layers is None else num_decoder_layers
        self.num_heads = num_heads
        self.relative_attention_num_buckets = relative_attention_num_buckets
        self.relative_attention_max_distance = relative_attention_max_distance
        self.max_positions = max_positions
        self.dropout_rate = dropout_rate
        self.layer_norm_epsilon = layer_norm_epsilon
        self.use_cache = use_cache
        self.num_sentinel_tokens = num_sentinel_tokens
        self.num_positions = num_positions
        self.num_auxiliary_layers = num_auxiliary_layers
        self.auxiliary_sharing = auxiliary_sharing
        self.auxiliary_dropout_rate = auxiliary_dropout_rate
        self.rtd_head = rtd_head
        self.rtd_location = rtd_location
        self.initialization = initialization
        self._check()
        special_tokens = {
            "pad_token_id": pad_token_id,
            "bos_token_id": bos_token_id,
            "eos_token_id": eos_token_id,
            "decoder_start_token_id": decoder_start_token_id,
        }
        super().__init__(
            **{"tie_word_embeddings": True, "is_encoder_decoder": True, **special_tokens, **kwargs}
        )

    @property
    def mask_token_id(self) -> int:
        """First sentinel: METRO's mask token and the decoder's start in pretraining (official ``t5_metro.py``)."""
        return self.vocab_size - self.num_sentinel_tokens

    def get_text_config(self, decoder: bool | None = None, encoder: bool | None = None) -> PreTrainedConfig:
        """The decoder's view has the decoder's depth in ``num_layers``: transformers sizes its cache by that."""
        view = super().get_text_config(decoder=decoder, encoder=encoder)
        if decoder and not encoder:
            view = copy(view)
            view.num_layers = self.num_decoder_layers
        return view

    def _check(self) -> None:
        if self.num_heads * self.d_kv != self.d_model:
            raise ValueError(
                f"num_heads * d_kv must be d_model, but {self.num_heads} * {self.d_kv} is not {self.d_model}"
            )
        for field, choices in (
            ("auxiliary_sharing", AUXILIARY_SHARINGS),
            ("rtd_head", RTD_HEADS),
            ("rtd_location", RTD_LOCATIONS),
            ("initialization", INITIALIZATIONS),
        ):
            if getattr(self, field) not in choices:
                raise ValueError(f"{field} must be one of {', '.join(choices)}, not {getattr(self, field)!r}")
        if not 0 < self.num_sentinel_tokens < self.vocab_size:
            raise ValueError(
                f"num_sentinel_tokens must lie between 1 and vocab_size - 1 ({self.vocab_size - 1}), "
                f"not {self.num_sentinel_tokens}"
            )
