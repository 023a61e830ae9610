"""What follows a causal LM's hidden states is recognised where it can be expressed, and nowhere else."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from doremi.models import output_head
from doremi.models.output_head import OutputHead
from tests.training.architectures import ARCHITECTURES, PLAIN, build


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_the_head_is_recognised_and_the_model_left_as_it_was(name, dtype):
    model = build(name, dtype=dtype)
    model.get_output_embeddings().eval()
    modes = [module.training for module in model.modules()]
    before = {key: value.clone() for key, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    found = output_head.resolve(model)
    assert found == ARCHITECTURES[name][2]
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not [module for module in model.modules() if "forward" in vars(module)]


def test_a_soft_cap_is_seen_although_a_fresh_model_stays_far_below_it():
    """30 · tanh(x / 30) is x to seven digits for the logits that a fresh model gives."""
    model = build("gemma2 (tied, soft cap)", dtype=torch.float32, final_logit_softcapping=30.0)
    for parameter in model.parameters():
        parameter.data *= 1e-3
    assert output_head.resolve(model) == OutputHead(softcap=30.0)


@pytest.mark.parametrize("vocab_size", [1, 2, 300])
def test_any_vocabulary_will_do(vocab_size):
    sizes = {"vocab_size": vocab_size, "pad_token_id": None, "bos_token_id": 0, "eos_token_id": 0}
    assert output_head.resolve(build("llama", **sizes)) == PLAIN


class Odd(LlamaForCausalLM):
    """Changes its logits in `change`, which is given all of them and the tokens."""

    def forward(self, input_ids=None, **kwargs):
        output = super().forward(input_ids=input_ids, **kwargs)
        output.logits = self.change(output.logits, input_ids)
        return output


class Centred(Odd):
    def change(self, logits, input_ids):
        return logits - logits.mean(dim=-1, keepdim=True)


class Repelled(Odd):
    def change(self, logits, input_ids):
        return logits.scatter(2, input_ids[..., None], -100.0)


class Shortened(Odd):
    def change(self, logits, input_ids):
        return logits[..., :-1]


class WithTemperature(Odd):
    """A learned scale that is still 1: chunked losses would give it no gradient."""

    def __init__(self, config):
        super().__init__(config)
        self.temperature = nn.Parameter(torch.ones(()))

    def change(self, logits, input_ids):
        return logits / self.temperature


class WithDropout(Odd):
    """Dropout that evaluation does not show."""

    def __init__(self, config):
        super().__init__(config)
        self.dropout = nn.Dropout(0.5)

    def change(self, logits, input_ids):
        return self.dropout(logits)


class WithFunctionalDropout(Odd):
    def change(self, logits, input_ids):
        return functional.dropout(logits, 0.5, training=self.training)


class SecondToLast(LlamaForCausalLM):
    def forward(self, input_ids=None, **kwargs):
        output = self.model(input_ids=input_ids, output_hidden_states=True, **kwargs)
        return type("Output", (), {"logits": self.lm_head(output.hidden_states[-2])})


class Scaled(LlamaForCausalLM):
    def forward(self, input_ids=None, **kwargs):
        return super().forward(inputs_embeds=2 * self.model.embed_tokens(input_ids), **kwargs)


class LinearOfMyOwn(nn.Linear):
    def forward(self, input):
        return super().forward(input) + input.sum(dim=-1, keepdim=True)


ODD = [Centred, Repelled, Shortened, WithTemperature, WithDropout, SecondToLast, Scaled]


@pytest.mark.parametrize("kind", ODD)
def test_what_cannot_be_expressed_is_not(kind):
    model = kind(build("llama").config).eval()
    assert output_head.resolve(model) is None
    assert model(input_ids=torch.tensor([[1, 2]])).logits.shape[:2] == (1, 2)


def test_dropout_that_is_no_module_is_seen_in_training_and_draws_no_random_numbers():
    model = WithFunctionalDropout(build("llama").config).train()
    random_state = torch.get_rng_state()
    assert output_head.resolve(model) is None
    assert torch.equal(torch.get_rng_state(), random_state)


def test_an_output_layer_that_is_more_than_linear_is_not():
    model = build("llama")
    model.lm_head = LinearOfMyOwn(16, 53, bias=False).double()
    assert output_head.resolve(model) is None


def test_a_scale_that_the_configuration_does_not_speak_of_is_not():
    class Quiet(Odd):
        def change(self, logits, input_ids):
            return 1.001 * logits

    assert output_head.resolve(Quiet(build("llama").config)) is None
