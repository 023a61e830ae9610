"""One YAML file to one frozen, validated, digestible `Recipe`.

Unknown keys are errors that name the nearest valid key. Every field carries the description that
``doremi run --help-recipe`` prints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from doremi import config, files, redaction
from doremi.config import (
    MAX_MODELS,
    MAX_PROCESSES,
    Count,
    Number,
    Section,
    WholeNumber,
)
from doremi.corpus.config import CorpusConfig, check_sets
from doremi.errors import InputError, MissingFileError, shorten, shown
from doremi.evaluation.config import EvaluationConfig
from doremi.files import yaml_files
from doremi.methods.doremi_config import ReweightingConfig
from doremi.models.config import ModelsConfig
from doremi.text import visible
from doremi.training.config import TrainingConfig

MAX_PROBLEMS_SHOWN = 15


class WeightsConfig(Section):
    """Where the run starts from and what it is compared with."""

    reference: str | dict[str, Number] = Field(
        "natural",
        description="reference weights: a rule (natural, natural(packed), natural(padded), uniform, temperature(T), "
        "unimax, unimax(N)), published weights such as pile-baseline-neox (`doremi weights show` lists them), a "
        "mapping {domain: weight}, or a JSON file; a domain left out is left out of the run",
    )
    baselines: list[str] = Field(
        ["uniform"],
        description="further weights to train the main model on, for comparison: rules, published weights, files, and "
        "reference_without_floor (the reference weights without the domains that DoReMi all but dropped)",
    )
    seeds: Count = Field(
        1,
        ge=1,
        le=MAX_MODELS,
        description="main models to train on each of the weights, with as many seeds: from three on, differences have "
        "intervals; with fewer, seed noise is not measured and the verdict says neither better nor worse",
    )
    epochs: dict[str, Number] = Field(
        {}, description="epochs that the corpus is meant to be seen for, by domain, as in the Pile; for natural weights"
    )


class ClusterConfig(Section):
    """How ``doremi run RECIPE --slurm NODES`` asks Slurm for machines. Nothing that is computed depends on it."""

    partition: str | None = Field(None, description="of the training jobs; absent: the cluster's default")
    account: str | None = Field(None, description="that is charged; absent: the cluster's default")
    time: str = Field("24:00:00", description="limit of a job; one that reaches it saves, and goes on in the queue")
    gpus_per_node: Count = Field(
        8, ge=0, le=MAX_PROCESSES, description="processes on each node, one for each GPU; 0: one, without GPU"
    )
    cpus_per_node: Count | None = Field(None, ge=1, description="absent: what the cluster gives")
    sbatch: dict[str, str] = Field({}, description="further options of every job, such as {qos: high, mem: 200G}")
    prepare_partition: str | None = Field(None, description="of the jobs that tokenise; absent: partition")
    prepare_tasks: Count = Field(16, ge=1, description="jobs that tokenise input files side by side, without GPU")
    prepare_cpus: Count = Field(8, ge=1, description="CPUs of each of them")
    grace_seconds: Count = Field(
        300, ge=60, description="before the limit, when a job is told to save; a step and its save must fit in"
    )
    set_up: list[str] = Field(
        [], description="lines of shell that every job begins with, such as module load cuda; run as they are"
    )
    cache: str | None = Field(
        None, description="folder for what Hugging Face, Triton and torch.compile cache; absent: the home folder"
    )


class Recipe(Section):
    """Everything a run depends on."""

    corpus: CorpusConfig = Field(description="text in, tokens out")
    weights: WeightsConfig = Field(WeightsConfig(), description="starting point and comparisons")
    models: ModelsConfig = Field(ModelsConfig(), description="reference, proxy and main model")
    training: TrainingConfig = Field(TrainingConfig(), description="how they are trained")
    reweighting: ReweightingConfig = Field(ReweightingConfig(), description="the Group DRO step")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="held-out evaluation")
    cluster: ClusterConfig = Field(ClusterConfig(), description="machines, for --slurm")
    seed: WholeNumber = Field(0, ge=0, lt=2**63, description="fixes initial parameters and data order")

    @model_validator(mode="after")
    def _check_sets(self) -> Recipe:
        check_sets(self.corpus, self.evaluation.sets)
        return self

    @model_validator(mode="after")
    def _rounds_train_the_reference(self) -> Recipe:
        if self.models.reference.init == "trained" and self.reweighting.rounds != 1:
            raise ValueError("reweighting.rounds trains a reference in each round: drop it, or models.reference.init")
        if (self.reweighting.prior is None) != (self.reweighting.prior_pull == 0):
            raise ValueError("reweighting.prior and reweighting.prior_pull go together")
        return self

    @property
    def digest(self) -> str:
        """Digest of the content: two recipes with the same digest ask for the same run, on whatever machines."""
        return files.digest_json(redaction.identity(self.model_dump(mode="json", exclude={"cluster"})))

    def to_yaml(self) -> str:
        """The resolved recipe as it is shown and kept: every default written out, secrets masked, home as ``~``."""
        content = redaction.public(self.model_dump(mode="json"))
        return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def load(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe and apply ``section.key=value`` overrides, whose values are YAML.

    Raises:
        MissingFileError: there is no such file.
        InputError: not YAML, an unknown key or a value out of its range; the message names key, value and remedy.
    """
    try:
        if path.is_dir():
            within = path / "recipe.yaml"
            hint = f"; the recipe of this run directory is {within}" if within.is_file() else ""
            raise InputError(f"{path}: expected a YAML file{hint}")
        content = yaml_files.read(path)
    except MissingFileError:
        raise MissingFileError(f"{path}: no such recipe{_known_recipe(path)}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a mapping with the sections {', '.join(Recipe.model_fields)}")
    for override in overrides:
        _apply_override(content, override)
    redaction.refuse_masked(content, source=str(path))
    return parse(config.expand_home(content), source=str(path))


def _known_recipe(path: Path) -> str:
    """What to do for one that comes with the package, and is not there yet."""
    name = path.name.removesuffix(".yaml")
    comes_with_us = (Path(__file__).parents[1] / "recipes" / f"{name}.yaml").is_file()
    return f"; `doremi recipe {name} > {name}.yaml` writes the one that comes with doremi" if comes_with_us else ""


def parse(content: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """Validate a mapping; all its errors are reported at once, each with the nearest valid key or the value."""
    found = list(config.problems(content))
    if not found:
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            found = [_explain(detail) for detail in error.errors()]
    left_out = [f"and {len(found) - MAX_PROBLEMS_SHOWN} more"] if len(found) > MAX_PROBLEMS_SHOWN else []
    lines = [f"\n  {visible(line)}" for line in (*found[:MAX_PROBLEMS_SHOWN], *left_out)]
    raise InputError(f"{source}: not a valid recipe:{''.join(lines)}")


def describe_fields(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every field of the recipe as (dotted key, default, description), depth first."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        inner = _section_in(field.annotation)
        default = "required" if field.is_required() else "" if inner else yaml.safe_dump(field.default).split("\n")[0]
        yield key, default, field.description or ""
        if inner:
            yield from describe_fields(inner, f"{key}[]." if _is_list(field.annotation) else f"{key}.")


def _section_in(annotation: Any) -> type[Section] | None:
    candidates = [annotation, *getattr(annotation, "__args__", ())]
    return next((c for c in candidates if isinstance(c, type) and issubclass(c, Section)), None)


def _is_list(annotation: Any) -> bool:
    return getattr(annotation, "__origin__", None) is list


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {shorten(override, 200)}: expected section.key=value, such as training.steps=200")
    parsed = yaml_files.load(value, source=f"--set {shorten(override, 200)}")
    for part in parts[:-1]:
        inner = content.get(part)
        content[part] = dict(inner) if isinstance(inner, dict) else {}
        content = content[part]
    content[parts[-1]] = parsed


def _explain(detail: ErrorDetails) -> str:
    *sections, last = detail["loc"] or ("",)  # which has the types of a union in it too, such as dict[str,float]
    location = [*(part for part in sections if isinstance(part, int) or part.isidentifier()), last]
    if detail["type"] not in ("extra_forbidden", "missing"):
        location = [part for part in location if isinstance(part, int) or part.isidentifier()]
    key = ".".join(shorten(str(part), 80) for part in location)
    if detail["type"] == "extra_forbidden":
        return f"{key}: unknown key; {_nearest(location)}"
    if detail["type"] == "missing":
        return f"{key}: required, but missing"
    message = detail["msg"].removeprefix("Value error, ")
    if detail["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key}: {message} (got {shown(detail['input'])})"


def _nearest(location: Sequence[int | str]) -> str:
    """Advice for an unknown key: the nearest valid one of the same section, or else the list of them."""
    section: type[BaseModel] = Recipe
    for part in location[:-1]:
        if isinstance(part, str) and part in section.model_fields:
            section = _section_in(section.model_fields[part].annotation) or section
    valid = list(section.model_fields)
    close = difflib.get_close_matches(str(location[-1]), valid, n=1)
    return f"did you mean {close[0]}?" if close else f"valid keys here: {', '.join(valid)}"
