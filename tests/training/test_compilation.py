import pytest
import torch

from doremi.mixture import MixtureSettings
from doremi.models.compilation import compile_layers
from doremi.training import DoReMiTrainer, ExcessLoss
from tests.training.fakes import SEQUENCE_LENGTH, InMemoryStore, arguments, parameters, tiny_model

# torch hides this warning of its own while it traces, but not from a filter that turns warnings into errors
pytestmark = pytest.mark.filterwarnings("default:The .grad attribute of a Tensor:UserWarning")


@pytest.fixture(autouse=True)
def no_graphs_of_other_tests():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def attention_calls(graph):
    return [node for node in graph.nodes if node.op == "call_function" and "scaled_dot" in node.target.__name__]


def test_layers_share_a_graph_and_their_attention_is_causal_without_a_mask():
    graphs = []

    def backend(module, example_inputs):
        graphs.append(module.graph)
        return module.forward

    model = tiny_model(num_hidden_layers=3)
    names = list(model.state_dict())
    compile_layers(model, backend=backend)
    model(input_ids=torch.zeros(2, 8, dtype=torch.int64), use_cache=False)
    assert len(graphs) == 1
    (call,) = attention_calls(graphs[0])
    assert call.kwargs["attn_mask"] is None
    assert call.kwargs["is_causal"] is True
    assert list(model.state_dict()) == names


def test_a_model_without_layers_of_transformers_is_compiled_as_a_whole():
    graphs = []

    def backend(module, example_inputs):
        graphs.append(module)
        return module.forward

    class Doubling(torch.nn.Module):
        def forward(self, values):
            return values * 2

    model = Doubling()
    compile_layers(model, backend=backend)
    assert model(torch.ones(3)).tolist() == [2, 2, 2]
    assert len(graphs) == 1


def test_torch_compile_compiles_proxy_and_reference_and_changes_no_bit(tmp_path):
    store, ends = InMemoryStore(), {}
    for settings in ({}, {"torch_compile_backend": "eager"}):
        model, reference = tiny_model(1), tiny_model(2)
        trainer = DoReMiTrainer(
            model,
            objective=ExcessLoss(reference, names=store.names),
            corpus=store,
            args=arguments(tmp_path / str(len(settings)), steps=3, **settings),
            mixture=MixtureSettings(sequence_length=SEQUENCE_LENGTH),
        )
        trainer.train()
        ends[len(settings)] = parameters(model)
        for each in (model, reference):
            is_compiled = [layer._compiled_call_impl is not None for layer in each.model.layers]
            assert is_compiled == [bool(settings)] * 2
        assert type(trainer.model_wrapped) is type(model)  # accelerate would have wrapped it
    assert torch.equal(ends[0], ends[1])
