"""The main model as transformers knows it: loading, saving, generation, and a sequence-to-sequence forward.

>>> model = MetroT0ForConditionalGeneration.from_pretrained(folder)      # published format or ours
>>> model.generate(**tokenizer(["..."], return_tensors="pt"))
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers import AutoConfig, AutoModelForSeq2SeqLM, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from .configuration import MetroT0Config
from .initialization import initialize, mark
from .layers import DecoderBlock, EncoderBlock
from .stacks import Decoder, Encoder


class MetroT0PreTrainedModel(PreTrainedModel):
    """What all METRO-T0 models have in common for transformers."""

    config: MetroT0Config
    config_class = MetroT0Config
    base_model_prefix = ""
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _can_compile_fullgraph = True
    _no_split_modules = [EncoderBlock.__name__, DecoderBlock.__name__]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values"]  # noqa: RUF012

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        initialize(module, self.config)


class MetroT0ForConditionalGeneration(MetroT0PreTrainedModel, GenerationMixin):
    """Encoder-decoder with one embedding for encoder input, decoder input and output, unscaled and without a bias.

    Source: official ``models/transformer/transformer_t5.py``; parameter names are those of the published checkpoints.
    """

    _tied_weights_keys = {  # noqa: RUF012
        "encoder.embed_tokens.weight": "shared.weight",
        "decoder.embed_tokens.weight": "shared.weight",
        "lm_head.weight": "shared.weight",
    }
    # A pretraining folder holds more than this model; the rest is left behind on purpose.
    _keys_to_ignore_on_load_unexpected = [r"^auxiliary\.", r"^rtd_head\."]  # noqa: RUF012

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__(config)
        self.shared = nn.Embedding(config.vocab_size, config.d_model, padding_idx=config.pad_token_id)
        self.encoder = Encoder(config, config.num_layers, config.dropout_rate)
        self.decoder = Decoder(config)
        self.lm_head = nn.Linear(config.d_model, config.vocab_size, bias=False)
        mark(self.shared, "vocabulary")
        mark(self.lm_head, "vocabulary")
        self._add_parts()
        self.post_init()

    def _add_parts(self) -> None:
        """Room for what a subclass adds before weights are initialised and tied."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The one token embedding, ``[vocabulary, hidden]``."""
        return self.shared

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding everywhere it is used as input."""
        assert isinstance(value, nn.Embedding)
        self.shared = value
        self.encoder.embed_tokens = value
        self.decoder.embed_tokens = value

    def get_output_embeddings(self) -> nn.Linear:
        """The output projection, tied to the token embedding."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Linear) -> None:
        """Replace the output projection."""
        self.lm_head = value

    def resize_token_embeddings(
        self,
        new_num_tokens: int | None = None,
        pad_to_multiple_of: int | None = None,
        mean_resizing: bool = True,
    ) -> nn.Embedding:
        """Grow or cut the one embedding at its end, wherever it is used; arguments and result as in transformers.

        The mask token keeps its id for as long as there is a row of that number.
        """
        mask_token_id = self.config.mask_token_id
        embedding = super().resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        self.config.num_sentinel_tokens = max(1, self.config.vocab_size - mask_token_id)
        return embedding

    def tie_weights(self, *arguments: Any, **keywords: Any) -> None:
        """As in transformers; also what a folder holds under two names, which transformers 5.0 leaves apart.

        ``torch.save`` writes a tied weight under each of its names, so the published ``pytorch_model.bin`` is such.
        """
        super().tie_weights(*arguments, **keywords)
        for target, source in self._tied_weights_keys.items() if self.config.tie_word_embeddings else ():
            one, other = self.get_parameter(target), self.get_parameter(source)
            if one is not other and not one.is_meta and not other.is_meta and torch.equal(one, other):
                place, _, name = target.rpartition(".")
                setattr(self.get_submodule(place), name, other)
                self.all_tied_weights_keys[target] = source

    def get_encoder(self, modality: str | None = None) -> Encoder:
        """The encoder stack."""
        return self.encoder

    def get_decoder(self) -> Decoder:
        """The decoder stack."""
        return self.decoder

    def project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Decoder states to logits: ``[..., hidden]`` to ``[..., vocabulary]``."""
        return self.lm_head(hidden_states)

    def prepare_decoder_input_ids_from_labels(self, labels: torch.Tensor) -> torch.Tensor:
        """Labels shifted right behind the decoder's start token; -100 becomes padding. ``[B, T]`` to ``[B, T]``."""
        shifted = labels.roll(1, dims=1)
        shifted[:, 0] = self.config.decoder_start_token_id
        return shifted.masked_fill(shifted == -100, self.config.pad_token_id)

    def prepare_inputs_for_generation(
        self, input_ids: torch.Tensor, *arguments: Any, **kwargs: Any
    ) -> dict[str, Any]:
        """What ``generate`` gives to ``forward`` at one step.

        A padding token that was generated as any other takes no position and is not looked at, as when all is decoded
        anew; the keys and values in a cache no longer tell where there was one, so that the mask has to.

        Raises:
            ValueError: the answer is longer than the position table.
        """
        self.decoder.check_length(input_ids.shape[1])
        mask = kwargs.get("decoder_attention_mask")
        if mask is None:
            real = input_ids.ne(self.config.pad_token_id)
            mask = None if bool(real.all()) else real
        if mask is not None and mask.dim() == 2:
            # A static cache makes one mask of this and the causal rule, and positions cannot be read off that.
            real = mask.long()
            kwargs["decoder_attention_mask"] = mask
            kwargs.setdefault("decoder_position_ids", real.cumsum(dim=1) * real - 1)
        parent: Any = super()
        return parent.prepare_inputs_for_generation(input_ids, *arguments, **kwargs)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        decoder_input_ids: torch.Tensor | None = None,
        decoder_attention_mask: torch.Tensor | None = None,
        encoder_outputs: BaseModelOutput | tuple[torch.Tensor, ...] | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        decoder_inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
        decoder_position_ids: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput | tuple[torch.Tensor, ...]:
        """Logits of every decoder position, and the mean cross-entropy where labels are given.

        Args:
            input_ids: ``[B, S]``.
            attention_mask: ``[B, S]``, 0 on padding; by default everything but ``pad_token_id`` is real.
            decoder_input_ids: ``[B, T]``; made from the labels where only those are given.
            decoder_attention_mask: ``[B, past + T]``, 0 on padding, beside the causal rule; by default, and without a
                cache, everything but ``pad_token_id`` is real.
            encoder_outputs: what the encoder gave before, in place of ``input_ids``.
            past_key_values: the cache of earlier steps.
            labels: ``[B, T]``, -100 where there is no loss.
            decoder_position_ids: ``[B or 1, T]``, counted from 0, -1 on padding; by default in order, padding left out.
            num_items_in_batch: what the sum of the losses is divided by in place of this call's number of labels: the
                trainer of transformers gives the labels of all calls between two updates.
        """
        config = self.config
        output_attentions = config.output_attentions if output_attentions is None else output_attentions
        output_hidden_states = (
            config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        if attention_mask is None and input_ids is not None:
            attention_mask = input_ids.ne(config.pad_token_id)
        if encoder_outputs is None:
            encoded = self.encoder(
                input_ids, attention_mask, inputs_embeds, output_attentions, output_hidden_states
            )
        elif isinstance(encoder_outputs, tuple):
            encoded = BaseModelOutput(last_hidden_state=encoder_outputs[0])
        else:
            encoded = encoder_outputs
        if labels is not None and decoder_input_ids is None and decoder_inputs_embeds is None:
            decoder_input_ids = self.prepare_decoder_input_ids_from_labels(labels)
        if decoder_attention_mask is None and decoder_input_ids is not None and past_key_values is None:
            decoder_attention_mask = decoder_input_ids.ne(config.pad_token_id)
        decoded = self.decoder(
            input_ids=decoder_input_ids,
            attention_mask=decoder_attention_mask,
            encoder_hidden_states=encoded.last_hidden_state,
            encoder_attention_mask=attention_mask,
            position_ids=decoder_position_ids,
            past_key_values=past_key_values,
            inputs_embeds=decoder_inputs_embeds,
            use_cache=config.use_cache and not self.training if use_cache is None else use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
        )
        logits = self.project(decoded.last_hidden_state)
        loss = None
        if labels is not None:
            loss = _cross_entropy(logits, labels, num_items_in_batch)
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            past_key_values=decoded.past_key_values,
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoded.last_hidden_state,
            encoder_hidden_states=encoded.hidden_states,
            encoder_attentions=encoded.attentions,
        )
        return output.to_tuple() if return_dict is False else output


def _cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, number: torch.Tensor | int | None
) -> torch.Tensor:
    """Sum over the labels ``[B, T]`` that are not -100, divided by their number or by ``number``."""
    logits, labels = logits.float().flatten(0, 1), labels.flatten()
    if number is None:
        return F.cross_entropy(logits, labels, ignore_index=-100)
    total = F.cross_entropy(logits, labels, ignore_index=-100, reduction="sum")
    return total / (number.to(total.device) if isinstance(number, torch.Tensor) else number)


AutoConfig.register(MetroT0Config.model_type, MetroT0Config, exist_ok=True)
AutoModelForSeq2SeqLM.register(MetroT0Config, MetroT0ForConditionalGeneration, exist_ok=True)
