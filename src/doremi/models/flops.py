"""FLOPs of a forward pass, counted operation by operation on torch's meta device, which computes nothing."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from doremi.errors import first_line, shorten

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

aten = torch.ops.aten

# A layer of more operations is a loop over time in Python (2,000 steps of Mamba's are 27,000), about 0.1 ms each.
MAX_OPERATIONS_OF_A_LAYER = 1_000
MAX_OPERATIONS = 500_000
# They multiply matrices, and PyTorch has no formula for them.
UNCOUNTED = {aten._grouped_mm, aten._int_mm, aten.addmv, aten.addr, aten.dot, aten.mv, aten.vdot}


class UntraceableError(Exception):
    """The model cannot be followed without computing; the message says why."""


def build(hf_config: PretrainedConfig) -> PreTrainedModel:
    """The model without memory for its parameters, in float32.

    Attention is eager and experts are batched matrix products, so that what is counted follows from shapes alone:
    attention over all L² pairs, whatever kernel will run, and the experts that a token is routed to, not all of them.
    """
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(hf_config, attn_implementation="eager", dtype=torch.float32)
    with suppress(ValueError):  # no mixture of experts, or one with code of its own
        model.set_experts_implementation("batched_mm")
    return model.eval()


def forward_flops(model: PreTrainedModel, sequence_length: int) -> float:
    """FLOPs of the forward pass of one row.

    What is counted is what `torch.utils.flop_counter.FlopCounterMode` counts, by the same formulas: matrix products
    and convolutions as the model's code in transformers asks for them. A recurrence counts as its Python code computes
    it, and a model that multiplies every token with every expert, such as Llama 4, counts all of them.

    Args:
        model: from `build`; its forward methods are changed.
        sequence_length: L of the row.

    Raises:
        UntraceableError: control flow that depends on values, a product without a formula, or too many operations.
    """
    counter = _Counter()
    _remember_long_layers(model, counter)
    ids = torch.zeros(1, sequence_length, dtype=torch.long, device="meta")
    try:
        with torch.no_grad(), counter:
            model(input_ids=ids, use_cache=False)
    except UntraceableError:
        raise
    except Exception as error:  # the code of any model: no figure is worth a failed run
        raise UntraceableError(f"{type(error).__name__}: {shorten(first_line(error), 120)}") from error
    finally:
        _forget(model)
    return float(counter.flops)


class _Counter(TorchDispatchMode):
    """Adds up FLOPs. Checks whether all of a mask is set are answered with yes: rows are full, nothing is padded."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = self.num_operations = 0
        self._checks: dict[int, torch.Tensor] = {}  # held, so that no other tensor gets the same id

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, operation = kwargs or {}, func._overloadpacket
        self.num_operations += 1
        if self.num_operations > MAX_OPERATIONS:
            raise UntraceableError(f"more than {MAX_OPERATIONS:,} operations in a forward pass")
        if func.namespace != "aten" or operation in UNCOUNTED:
            raise UntraceableError(f"{func} has no formula")
        if operation is aten._local_scalar_dense and id(args[0]) in self._checks:
            return True
        result = func(*args, **kwargs)
        if operation in flop_registry:
            self.flops += flop_registry[operation](*args, **kwargs, out_val=result)
        elif operation is aten.all:
            self._checks[id(result)] = result
        return result


def _remember_long_layers(model: torch.nn.Module, counter: _Counter) -> None:
    """Follow a long layer once; another of the same class, parameters and inputs takes as much."""
    known: dict[Any, tuple[int, Any]] = {}
    for stack in (module for module in model.modules() if isinstance(module, torch.nn.ModuleList)):
        for layer in stack:
            layer.forward = _remembering(layer, layer.forward, known, counter)


def _remembering(
    layer: torch.nn.Module, forward: Callable[..., Any], known: dict[Any, tuple[int, Any]], counter: _Counter
) -> Callable[..., Any]:
    shapes = tuple((name, parameter.shape) for name, parameter in layer.named_parameters())

    @wraps(forward)
    def remembered(*args: Any, **kwargs: Any) -> Any:
        inputs = tuple(
            (name, tuple(value.shape) if isinstance(value, torch.Tensor) else type(value))
            for name, value in [*enumerate(args), *kwargs.items()]
        )
        key = (type(layer), shapes, inputs)
        if key in known:
            flops, result = known[key]
            counter.flops += flops
            return result
        flops, num_operations = counter.flops, counter.num_operations
        result = forward(*args, **kwargs)
        if counter.num_operations - num_operations > MAX_OPERATIONS_OF_A_LAYER:
            known[key] = (counter.flops - flops, result)
        return result

    return remembered


def _forget(model: torch.nn.Module) -> None:
    for module in model.modules():
        vars(module).pop("forward", None)
