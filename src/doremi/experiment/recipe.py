"""One YAML file to one frozen, validated, digestible `Recipe`.

Unknown keys are errors that name the nearest valid key. Every field carries the description that
``doremi run --help-recipe`` prints.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    BaseModel,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from doremi import config, files, redaction
from doremi.config import (
    MAX_MODELS,
    MAX_PROCESSES,
    RUNS,
    Count,
    Number,
    Section,
    WholeNumber,
)
from doremi.corpus.config import CorpusConfig, check_sets
from doremi.errors import InputError, MissingFileError, shorten, shown
from doremi.evaluation.config import EvaluationConfig
from doremi.files import yaml_files
from doremi.methods import named
from doremi.methods.doremi import DoReMi
from doremi.methods.named import Named
from doremi.models.config import ModelsConfig
from doremi.text import visible
from doremi.training.config import TrainingConfig

MAX_PROBLEMS_SHOWN = 15
# Keys of older recipes, and what they are called now.
RENAMED = {
    "weights": {
        "reference": "is now `prior`",
        "baselines": "is now part of `methods`, such as methods: [natural, uniform, doremi]",
        "seeds": "is now `verify.seeds`",
        "epochs": "is now `epochs`",
        "*": "there is no section `weights` any more; see prior, methods, verify",
    },
    "reweighting": {"*": "is now an option of the method: methods: [natural, uniform, {doremi: {KEY: ...}}]"},
}


class VerifyConfig(Section):
    """What the answers of the methods are tried on, and compared by."""

    size: Literal["main", "proxy", "reference"] = Field(
        "main",
        description="which of the models is trained on every answer; proxy is cheap, and its verdict claims nothing "
        "about the main size",
    )
    seeds: Count = Field(
        1,
        ge=1,
        le=MAX_MODELS,
        description="models to train on each answer, with as many seeds: from three on, differences have intervals; "
        "with fewer, seed noise is not measured and the verdict says neither better nor worse",
    )
    control: str | None = Field(
        None, description="label of the method that the others are compared with; absent: natural, or else the first"
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
    prior: str | dict[str, Number] = Field(
        "natural",
        description="weights to start from and to stay near: a rule (natural, natural(packed), natural(padded), "
        "uniform, temperature(T), unimax, unimax(N)), published weights such as pile-baseline-neox (`doremi weights "
        "show` lists them), a mapping {domain: weight}, or a JSON file; a domain left out is left out of the run. "
        "DoReMi's reference is trained on them",
    )
    epochs: dict[str, Number] = Field(
        {}, description="epochs that the corpus is meant to be seen for, by domain, as in the Pile; for natural weights"
    )
    methods: list[str | dict[str, Any]] = Field(
        ["natural", "uniform", "doremi"],
        validate_default=True,
        description="what is compared: rules, published weights and files as of prior, reference_without_floor (the "
        "prior without the domains that DoReMi all but dropped), and methods that train to find weights. With options: "
        "{doremi: {rounds: auto, seeds: 3}}; {file: weights.json}; {weights: {web: 0.7, code: 0.3}}; label beside the "
        "name for another name in tables. package.module:Class is a method or policy of your own, whose code runs with "
        "your rights",
    )
    target: str | dict[str, Number] = Field(
        "uniform",
        description="what is to be low: uniform (mean over domains), reference (mean weighted by the prior), worst, or "
        "{set: weight} over domains and evaluation sets",
    )
    models: ModelsConfig = Field(ModelsConfig(), description="reference, proxy and main model")
    training: TrainingConfig = Field(TrainingConfig(), description="how they are trained")
    verify: VerifyConfig = Field(VerifyConfig(), description="models trained on the answers, to compare them")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="held-out evaluation")
    cluster: ClusterConfig = Field(ClusterConfig(), description="machines, for --slurm")
    seed: WholeNumber = Field(0, ge=0, lt=2**63, description="fixes initial parameters and data order")

    @field_validator("methods", mode="after")
    @classmethod
    def _every_option_written_out(cls, entries: list[str | dict[str, Any]]) -> list[Any]:
        named.read(entries)
        return named.resolved(entries)

    @model_validator(mode="after")
    def _fits_together(self) -> Recipe:
        check_sets(self.corpus, self.evaluation.sets)
        if not self.methods:
            raise ValueError("methods: name at least one, such as natural")
        labels = [item.label for item in self.named_methods]
        if taken := [label for label in labels if label in RUNS]:
            raise ValueError(f"methods: the name {taken[0]!r} is taken by a model; give that method another `label`")
        if self.verify.control is not None and self.verify.control not in labels:
            raise ValueError(
                f"verify.control: {self.verify.control!r} is no method of the recipe; they are {', '.join(labels)}"
            )
        if self.models.reference.init == "trained" and any(method.rounds != 1 for method in self.doremi_methods()):
            raise ValueError("doremi.rounds trains a reference in each round: drop it, or models.reference.init")
        return self

    @cached_property
    def named_methods(self) -> tuple[Named, ...]:
        """The methods that are compared."""
        return named.read(self.methods)

    def doremi_methods(self) -> list[DoReMi]:
        """Those of them that are DoReMi: its options are looked at before there is a corpus."""
        return [item.method for item in self.named_methods if isinstance(item.method, DoReMi)]

    @property
    def control(self) -> str:
        """Label of the method that the others are compared with."""
        labels = [item.label for item in self.named_methods]
        return self.verify.control or ("natural" if "natural" in labels else labels[0])

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
    found = [*config.problems(content), *_renamed(content)]
    if not found:
        try:
            return Recipe.model_validate(content)
        except ValidationError as error:
            found = [config.explain(detail, Recipe) for detail in error.errors()]
    left_out = [f"and {len(found) - MAX_PROBLEMS_SHOWN} more"] if len(found) > MAX_PROBLEMS_SHOWN else []
    lines = [f"\n  {visible(line)}" for line in (*found[:MAX_PROBLEMS_SHOWN], *left_out)]
    raise InputError(f"{source}: not a valid recipe:{''.join(lines)}")


def describe_fields(section: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, str, str]]:
    """Every field of the recipe as (dotted key, default, description), depth first."""
    for name, field in section.model_fields.items():
        key = f"{prefix}{name}"
        inner = config.section_in(field.annotation)
        default = "required" if field.is_required() else "" if inner else yaml.safe_dump(field.default).split("\n")[0]
        yield key, default, field.description or ""
        if inner:
            yield from describe_fields(inner, f"{key}[]." if config.is_list(field.annotation) else f"{key}.")
        if key == "methods":
            for method, options in named.METHODS.items():
                yield from describe_fields(options, f"methods[].{method}.")


def _renamed(content: Mapping[str, Any]) -> Iterator[str]:
    """A line for each key that had another name before there were several methods."""
    for section, keys in RENAMED.items():
        given = content.get(section)
        for key in given if isinstance(given, dict) else ():
            yield f"{section}.{key}: {keys.get(key) or keys['*']}".replace("KEY", key)


def _apply_override(content: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    parts = key.split(".")
    if not equals or not all(parts):
        raise InputError(f"--set {shorten(override, 200)}: expected section.key=value, such as training.steps=200")
    parsed = yaml_files.load(value, source=f"--set {shorten(override, 200)}")
    for place, part in enumerate(parts[:-1]):
        inner = content.get(part)
        if part == "methods" and place == 0:  # methods.doremi.seeds: the one of that name, with options or without
            content = _options_of(content, parts[1], override)
            parts = parts[1:]
            break
        content[part] = dict(inner) if isinstance(inner, dict) else {}
        content = content[part]
    content[parts[-1]] = parsed


def _options_of(content: dict[str, Any], name: str, override: str) -> dict[str, Any]:
    """The options of a method in the list ``methods``, to be changed."""
    entries = list(content.get("methods", Recipe.model_fields["methods"].default))
    for position, entry in enumerate(entries):
        if entry == name or (isinstance(entry, dict) and name in (*entry, entry.get("label"))):
            entries[position] = {name: {}} if isinstance(entry, str) else dict(entry)
            key = name if name in entries[position] else next(key for key in entry if key != "label")
            options = entries[position][key] = dict(entries[position][key] or {})
            content["methods"] = entries
            return options
    raise InputError(f"--set {shorten(override, 200)}: no method {shown(name)} in methods; there are {shown(entries)}")
