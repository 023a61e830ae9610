"""The one way to load a trained model: every tensor from safetensors, each where it belongs, or a refusal in a line.

Where transformers loads a checkpoint, whatever is missing from it is drawn at random, whatever is left over is dropped,
and a table says so among other output. Numbers of such a model look like numbers.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from doremi import files
from doremi.errors import InputError

logger = logging.getLogger(__name__)

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"
HUB_FILES = ("*.json", "model*.safetensors", "*.txt", "*.model")  # no pickles
NUM_SHOWN = 3  # tensors that a message names
MAX_REASON = 200  # characters of somebody else's message
TALKATIVE = ("transformers.modeling_utils", "transformers.distributed.tensor_parallel")

# what code of others raises over a file or a value that it did not expect
FOREIGN_ERRORS = (
    ArithmeticError, AssertionError, AttributeError, ImportError, LookupError, OSError, RuntimeError, SafetensorError,
    StrictDataclassError, TypeError, ValueError,
)  # fmt: skip


class _Header(NamedTuple):
    """What a safetensors file says of a tensor."""

    dtype: str  # safetensors' name, such as BF16
    shape: tuple[int, ...]

    @property
    def is_buffer(self) -> bool:
        """Whether no parameter looks like this: old checkpoints hold causal masks and their fill values."""
        return not self.shape or self.dtype == "BOOL" or self.dtype.startswith(("I", "U"))


def load(
    model: str | Path,
    *,
    hf_config: PretrainedConfig | None = None,
    dtype: torch.dtype | str = torch.float32,
    attention: str | None = None,
    renamed: dict[str, str] | None = None,
) -> PreTrainedModel:
    """A causal LM with all of its weights, in evaluation mode, on the CPU.

    Args:
        model: folder, or hub id.
        hf_config: the configuration; default: the one beside the weights.
        dtype: of the parameters, whatever they were saved in.
        attention: implementation; None: transformers' choice.
        renamed: pattern to replacement, where the model is a part of the one that was saved; what belongs to other
            parts is then left out.

    Raises:
        InputError: there is no such model, no causal LM, no safetensors, a damaged file, or a tensor that is missing,
            not the model's, or of another shape.
    """
    folder = locate(model)
    with explained(model), _no_table():
        config = hf_config or AutoConfig.from_pretrained(folder, trust_remote_code=False)
        headers = _read_headers(folder, config)
        settings = {} if attention is None else {"attn_implementation": attention}
        loaded, found = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=dtype,
            use_safetensors=True,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,  # they are in `found`
            output_loading_info=True,
            key_mapping=renamed,
            **settings,
        )
    _check_all_used(model, found, headers, is_part=renamed is not None)
    return loaded


def check(
    model: str | Path, *, hf_config: PretrainedConfig | None = None, renamed: dict[str, str] | None = None
) -> None:
    """Refuse what `load` would refuse of a checkpoint, by the headers of its files; no weight is read.

    Args:
        model: folder, or hub id.
        hf_config: as of `load`.
        renamed: as of `load`.

    Raises:
        InputError: as `load`.
    """
    folder = locate(model)
    with explained(model), _no_table():
        config = hf_config or AutoConfig.from_pretrained(folder, trust_remote_code=False)
        headers = _read_headers(folder, config)
        built = empty(config)
        try:
            _, found = type(built).from_pretrained(
                None,
                config=built.config,
                state_dict={name: torch.empty(header.shape, device="meta") for name, header in headers.items()},
                device_map={"": "meta"},
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                key_mapping=renamed,
            )
        except NotImplementedError as error:  # a type that moves weights to the CPU while it converts them (qwen4_exp)
            logger.debug("%s cannot be looked at without its weights: %s", model, error)
            return
    _check_all_used(model, found, headers, is_part=renamed is not None)


def empty(hf_config: PretrainedConfig, *, attention: str | None = None) -> PreTrainedModel:
    """The model of a configuration on the meta device: of any size in a second, without memory and without values.

    Raises:
        Any of `FOREIGN_ERRORS`: there is no causal LM of this configuration, or not with this attention.
    """
    settings = {} if attention is None else {"attn_implementation": attention}
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(
            copy.deepcopy(hf_config), dtype=torch.float32, trust_remote_code=False, **settings
        )


def locate(model: str | Path) -> Path:
    """The folder of a model, downloaded where it is a hub id.

    Raises:
        InputError: there is neither.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    with explained(model):
        return Path(snapshot_download(str(model), allow_patterns=[*HUB_FILES]))


@contextmanager
def explained(model: str | Path) -> Iterator[None]:
    """Turn what transformers, torch and safetensors have against a model into one line.

    Raises:
        InputError: for any error of theirs; ours pass.
    """
    try:
        yield
    except InputError:
        raise
    except FOREIGN_ERRORS as error:
        raise InputError(f"{model}: not a causal LM that transformers loads: {reason(error)}") from error


def reason(error: BaseException) -> str:
    """The first line of an error, short and without control characters; its type where it says nothing."""
    if isinstance(error, StrictDataclassError) and error.__cause__ is not None:
        return reason(error.__cause__)  # which says more than that there was one
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = "".join(character if character.isprintable() else "?" for character in lines[0]) if lines else ""
    if "automatic conversion of the weights" in text:
        return "weights that belong together, such as those of the experts, are incomplete or of different shapes"
    text = text if len(text) <= MAX_REASON else f"{text[:MAX_REASON]}..."
    return f"{type(error).__name__}: {text}" if isinstance(error, LookupError | AttributeError) or not text else text


# ---- headers ----


def _read_headers(folder: Path, config: PretrainedConfig) -> dict[str, _Header]:
    """What the safetensors files of a model hold, by name; reads no weight."""
    if getattr(config, "transformers_weights", None) is not None:
        raise InputError(f"{folder}/config.json: transformers_weights names other files; call them {WEIGHTS}")
    if (folder / WEIGHTS).is_file():
        return _header(folder / WEIGHTS)
    if not (folder / INDEX).is_file():
        raise InputError(f"{folder}: no weights there: {_what_is_there(folder)}")
    headers: dict[str, _Header] = {}
    places = _read_index(folder)
    for shard in sorted(set(places.values())):
        headers |= _header(folder / shard)
    if absent := sorted(places.keys() - headers.keys()):
        raise InputError(f"{folder / INDEX}: {_count(absent, 'in none of its files')}; {_REMEDY}")
    return headers


def _header(file: Path) -> dict[str, _Header]:
    try:
        with safe_open(file, framework="pt") as opened:
            pieces = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            return {name: _Header(piece.get_dtype(), tuple(piece.get_shape())) for name, piece in pieces.items()}
    except FileNotFoundError:
        raise InputError(f"{file}: no such file, though {INDEX} names it; {_REMEDY}") from None
    except SafetensorError as error:
        raise InputError(f"{file}: not a whole safetensors file ({reason(error)}); {_REMEDY}") from None


def _read_index(folder: Path) -> dict[str, str]:
    """Tensor to file, as the index of a model in several files has it."""
    index: Any = files.read_json(folder / INDEX)
    places = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(places, dict) or not places or not all(_is_name(place) for place in places.values()):
        raise InputError(f"{folder / INDEX}: its weight_map must give, for each tensor, a file beside it; {_REMEDY}")
    return places


def _is_name(place: object) -> bool:
    return isinstance(place, str) and place == Path(place).name and place.endswith(".safetensors")


def _what_is_there(folder: Path) -> str:
    if any(folder.glob("pytorch_model*.bin*")):
        return (
            "only a pickle (pytorch_model.bin), which is never read, since it may hold a program. Save it as "
            f"safetensors: AutoModelForCausalLM.from_pretrained({folder.name!r}).save_pretrained(...)"
        )
    return f"neither {WEIGHTS} nor {INDEX}"


# ---- what was loaded ----

_REMEDY = "copy or download the model again"


def _check_all_used(
    model: str | Path, found: Mapping[str, Any], headers: Mapping[str, _Header], *, is_part: bool
) -> None:
    """Refuse a model of which a tensor is not what was saved.

    Which tied weights and which leftovers of older versions do not count is transformers' knowledge; to that come
    leftovers that are no parameters.
    """
    buffers = tuple(name for name, header in headers.items() if header.is_buffer)
    unexpected = [name for name in found["unexpected_keys"] if not (is_part or name.endswith(buffers))]
    shapes = [f"{name} {_shape(of)} instead of {_shape(wanted)}" for name, of, wanted in found["mismatched_keys"]]
    problems = [
        _count(names, what)
        for what, names in (
            ("missing", sorted(found["missing_keys"])),
            ("not the model's", sorted(unexpected)),
            ("of another shape", sorted(shapes)),
        )
        if names
    ]
    if problems:
        raise InputError(
            f"{model}: its weights are not those of its configuration: {'; '.join(problems)}. Use a checkpoint that "
            "was saved whole, with its own config.json and without overrides of its size"
        )


def _count(names: Sequence[str], what: str) -> str:
    shown = ", ".join("".join(c if c.isprintable() else "?" for c in name[:120]) for name in names[:NUM_SHOWN])
    more = f" and {len(names) - NUM_SHOWN} more" if len(names) > NUM_SHOWN else ""
    return f"{len(names)} {'tensor is' if len(names) == 1 else 'tensors are'} {what} ({shown}{more})"


def _shape(shape: Iterable[int]) -> str:
    return "×".join(map(str, shape)) or "1"


@contextmanager
def _no_table() -> Iterator[None]:
    """Without transformers' table of what is missing: it is refused in a line. Nor is there talk of shards."""
    loggers = [logging.getLogger(name) for name in TALKATIVE]
    levels = [logger.level for logger in loggers]
    for theirs in loggers:
        theirs.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for theirs, level in zip(loggers, levels, strict=True):
            theirs.setLevel(level)
