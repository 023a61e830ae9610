"""A causal LM whose every answer is known: it looks up the last token, whatever came before."""

from __future__ import annotations

import math

import tokenizers
import torch
from tokenizers import decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

EOS, UNKNOWN = "<|endoftext|>", "<|unknown|>"
NUM_POSITIONS = 64
_TOKEN = tokenizers.Regex(r"\n| ?[^\s]+")  # a word with its space, or the end of a line


def tokenizer(words):
    """Of words and of words after a space; everything else is unknown."""
    known = [EOS, UNKNOWN, "\n", *words, *(f" {word}" for word in words)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(known))}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token=UNKNOWN))
    backend.pre_tokenizer = pre_tokenizers.Split(_TOKEN, behavior="isolated")
    backend.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=EOS, unk_token=UNKNOWN)


def model(tokenizer, following, *, certainty=0.9):
    """``following[a] = b``: after token a comes b with probability ``certainty``, the others share the rest equally.

    After a token that is not in it comes the end of the line. Attention and the MLP add nothing, the embedding of a
    token is its row of the identity, and the output head holds the logits.
    """
    size = len(tokenizer)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size,
        intermediate_size=4,
        num_hidden_layers=1,
        num_attention_heads=1,
        head_dim=4,
        max_position_embeddings=NUM_POSITIONS,
        tie_word_embeddings=False,
        bos_token_id=0,
        eos_token_id=0,
        rms_norm_eps=1e-12,
    )
    model = LlamaForCausalLM(config).to(torch.float32)
    ids = tokenizer.get_vocab()
    after = [ids["\n"]] * size
    for token, successor in following.items():
        after[ids[token]] = ids[successor]
    logit = math.log(certainty * (size - 1) / (1 - certainty)) / size**0.5  # RMSNorm makes the 1 a √size
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        model.model.embed_tokens.weight.copy_(torch.eye(size))
        model.lm_head.weight.zero_()
        for token, successor in enumerate(after):
            model.lm_head.weight[successor, token] = logit
    return model


def save(folder, words, following, **kwargs):
    """A model folder as training writes it."""
    chosen = tokenizer(words)
    model(chosen, following, **kwargs).save_pretrained(folder)
    chosen.save_pretrained(folder)
    return folder
