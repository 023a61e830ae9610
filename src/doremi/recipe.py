"""One YAML file to one frozen, validated, digestible `Recipe`.

Unknown keys are errors that name the nearest valid key. Every field carries the description that
``doremi run --help-recipe`` prints.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from doremi import files, recipe_values, redaction, yaml_files
from doremi.errors import InputError, MissingFileError, shorten, shown
from doremi.mixture import BlockShuffle, MixtureSettings, RepetitionLimit, Shuffle
from doremi.recipe_values import (
    MAX_MODELS,
    MAX_PROCESSES,
    MAX_ROWS,
    MAX_STEPS,
    MAX_TOKENS,
    Count,
    Number,
    WholeNumber,
)
from doremi.report.escaping import visible
from doremi.training.presets import PRESETS

MAX_PROBLEMS_SHOWN = 15

RunName = Literal["reference", "proxy", "main"]
RUNS: tuple[RunName, ...] = get_args(RunName)


class Section(BaseModel):
    """A frozen part of the recipe that refuses keys it does not know, and values of another type than their own."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), strict=True, allow_inf_nan=False)


class HubDatasetConfig(Section):
    """A dataset of the Hugging Face hub, streamed. None of its code is run."""

    name: str = Field(description="hub id owner/name, or a local folder that datasets.load_dataset reads")
    config: str | None = Field(None, description="configuration (subset) of the dataset, if it has several")
    split: str = Field("train", description="split of the dataset; its documents may still be held out by content hash")
    revision: str | None = Field(None, description="branch, tag or commit; absent: the newest")


def _dataset_shorthand(value: object) -> object:
    """``dataset: owner/name`` is short for ``dataset: {name: owner/name}``."""
    return {"name": value} if isinstance(value, str) else value


class InputConfig(Section):
    """One source of documents: ``path``, ``dataset`` or ``reader``, with a fixed ``domain`` or a ``domain_field``."""

    path: str | None = Field(
        None,
        description="file, folder or glob pattern, local or a URL such as s3://, gs:// and hf://: .jsonl or .json "
        "lines, .txt (one document a file; both plain, .gz or .zst), .parquet, or local folders that "
        "datasets.load_from_disk opens (text, or token ids in upstream's layouts); without domain and domain_field, "
        "the folder directly below names the domain",
    )
    dataset: Annotated[HubDatasetConfig | None, BeforeValidator(_dataset_shorthand)] = Field(
        None, description="dataset of the Hugging Face hub: owner/name, or a mapping with config, split, revision"
    )
    reader: str | None = Field(
        None,
        description="package.module:function that yields (domain, text) or (domain, token ids); Python code of yours "
        "that runs with your rights",
    )
    domain: str | None = Field(None, description="name of the one domain that every document of this input belongs to")
    domain_field: str | None = Field(
        None, description="where a record names its domain; dotted path such as meta.pile_set_name"
    )
    text_field: str = Field("text", description="where a record holds its text; dotted path")
    ids_field: str = Field("input_ids", description="column of token ids in an already tokenised dataset")
    ids_rows: Literal["chunks", "documents"] = Field(
        "chunks",
        description="what a row of token ids is: a chunk of a stream that holds its own EOS tokens, stored as it is, "
        "or a document, to which EOS is appended where it is missing",
    )

    @property
    def source(self) -> str:
        """What the documents come from, in a word."""
        return self.path or (self.dataset.name if self.dataset else self.reader) or ""

    @model_validator(mode="after")
    def _one_source(self) -> InputConfig:
        if [self.path, self.dataset, self.reader].count(None) != 2:
            raise ValueError("give exactly one of `path`, `dataset` and `reader`")
        if self.domain is not None and self.domain_field is not None:
            raise ValueError("give `domain` or `domain_field`, not both")
        if self.reader is not None and (self.domain is not None or self.domain_field is not None):
            raise ValueError("a `reader` yields the domain with each document: drop `domain` and `domain_field`")
        if self.dataset is not None and self.domain is None and self.domain_field is None:
            raise ValueError("a `dataset` needs `domain` (one name) or `domain_field` (the column that names it)")
        return self


class TokenizerConfig(Section):
    """A tokenizer to load, or the size of one to train."""

    path: str | None = Field(
        None, description="Hugging Face tokenizer: folder, tokenizer.json or hub id; absent: one is trained"
    )
    vocab_size: Count = Field(
        2048, ge=257, le=2**31 - 1, description="vocabulary of the byte-level BPE that is trained on the corpus"
    )
    train_megabytes: Number = Field(
        50.0,
        gt=0,
        description="text that the BPE is trained on, at most, in MB; taken in proportion to the domains",
    )
    eos_token: str | None = Field(
        None, description="token that ends a document, where the files of the loaded tokenizer do not name one"
    )
    backend: Literal["auto", "tokenizers", "fastokens"] = Field(
        "auto",
        description="library that encodes: auto takes fastokens (extra `fast`) where it gives the same ids as "
        "tokenizers on a fuzz set and on the first documents. The result does not depend on it",
    )


class CorpusConfig(Section):
    """Where the text comes from and how it becomes tokens."""

    inputs: list[InputConfig] = Field([], description="sources of documents, mixed freely")
    store: str | None = Field(
        None,
        description="tokens to read where they lie, instead of inputs: a folder that `doremi prepare` wrote, or "
        "upstream's preprocessed one, train/DOMAIN[/shard] and validation/DOMAIN[/shard] of datasets.save_to_disk with "
        "input_ids, which needs tokenizer.path",
    )
    held_out_inputs: list[InputConfig] = Field(
        [], description="sources of held-out documents; absent: a fraction of the inputs, chosen by content hash"
    )
    held_out_fraction: Number = Field(
        0.05, ge=0, lt=1, description="share of each domain's documents held out for evaluation, by content hash"
    )
    tokenizer: TokenizerConfig = Field(TokenizerConfig(), description="tokenizer to load or to train")
    num_workers: Count = Field(
        1,
        ge=1,
        le=MAX_PROCESSES,
        description="processes that tokenise input files side by side; one already uses all cores for the tokenizer. "
        "The result does not depend on it",
    )
    packing: Literal["pack", "pad"] = Field(
        "pack",
        description="pack: rows are windows of all documents joined by EOS; pad: each document begins a row of its "
        "own. Rows are worked out when they are read, so a change does not prepare the corpus again",
    )
    on_bad_record: Literal["error", "skip"] = Field(
        "error",
        description="a record that cannot be used (malformed JSON, missing field, no text, invalid UTF-8, impossible "
        "domain name) stops the preparation, or is left out and counted",
    )

    @model_validator(mode="after")
    def _something_held_out(self) -> CorpusConfig:
        if bool(self.inputs) == (self.store is not None):
            raise ValueError("give `inputs`, or a `store` to read in place, and not both")
        if self.store is not None and self.held_out_inputs:
            raise ValueError("a `store` has its own held-out documents: drop `held_out_inputs`")
        if not self.held_out_inputs and self.held_out_fraction == 0:
            raise ValueError("nothing is held out: set held_out_fraction above 0 or give held_out_inputs")
        return self


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


class ModelConfig(Section):
    """A causal language model: a preset, or any Hugging Face configuration."""

    preset: str | None = Field(None, description="named size of this package: tiny, or 70m to 8b")
    path: str | None = Field(None, description="Hugging Face model: folder, config.json or hub id; instead of a preset")
    init: Literal["random", "pretrained", "trained"] = Field(
        "random",
        description="random: fresh parameters from the seed; pretrained: training goes on from the parameters found at "
        "path; trained: the model at path as it is, which skips its training (reference only)",
    )
    overrides: dict[str, Any] = Field({}, description="configuration values to set on top, such as hidden_size: 128")
    attn_implementation: str = Field(
        "auto",
        description="attention kernel: auto (FlashAttention where it can be had, else transformers' choice), eager, "
        "sdpa, flash_attention_2, flex_attention",
    )

    @model_validator(mode="after")
    def _preset_or_path(self) -> ModelConfig:
        if (self.preset is None) == (self.path is None):
            raise ValueError("give exactly one of `preset` and `path`")
        if self.init != "random" and self.path is None:
            raise ValueError(f"init: {self.init} needs a `path`: presets have no trained parameters")
        return self


def _model_shorthand(value: object) -> object:
    """``proxy: tiny`` is short for ``proxy: {preset: tiny}``; what has a slash or a dot, or is a folder, is a path.

    The name of a preset is that preset, whatever lies beside the recipe.
    """
    if not isinstance(value, str):
        return value
    is_path = any(mark in value for mark in "/.\\") or (value not in PRESETS and Path(value).is_dir())
    return {"path": value} if is_path else {"preset": value}


Model = Annotated[ModelConfig, BeforeValidator(_model_shorthand)]
TINY = ModelConfig(preset="tiny")


class ModelsConfig(Section):
    """The three models of DoReMi. Reference and proxy are usually the same small size, main is the large one."""

    reference: Model = Field(
        TINY, description="the model whose losses the proxy's are compared with; absent: as the proxy, or tiny"
    )
    proxy: Model = Field(
        TINY,
        description="the model trained with Group DRO; must share the tokenizer; absent: as the reference, or tiny",
    )
    main: Model = Field(
        TINY, description="the model trained on the domain weights, and on each baseline; absent: as the proxy"
    )

    @model_validator(mode="wrap")
    @classmethod
    def _absent_models_are_like_the_others(cls, value: object, handler: ModelWrapValidatorHandler) -> ModelsConfig:
        """A forgotten main model that was a toy beside the proxy would be compared for nothing."""
        found = handler(value)
        given = {name: getattr(found, name) for name in found.model_fields_set}
        if "proxy" not in given and "reference" in given:
            init = given["reference"].init
            given["proxy"] = given["reference"].model_copy(update={"init": "random" if init == "trained" else init})
        if "proxy" in given:
            given = {"reference": given["proxy"], "main": given["proxy"]} | given
        return handler(given)

    @model_validator(mode="after")
    def _only_the_reference_is_trained_already(self) -> ModelsConfig:
        for name in ("proxy", "main"):
            if getattr(self, name).init == "trained":
                raise ValueError(f"{name}: init: trained is for the reference; use pretrained to go on from a model")
        return self


class TrainingConfig(Section):
    """How every model is trained; ``overrides`` changes it for one of reference, proxy and main."""

    steps: Count = Field(1000, ge=1, le=MAX_STEPS, description="optimizer steps")
    sequence_length: Count = Field(128, ge=2, le=MAX_TOKENS, description="tokens in a training row")
    global_batch_size: Count = Field(16, ge=1, le=MAX_ROWS, description="rows per optimizer step over all processes")
    micro_batch_size: Count | None = Field(
        None,
        ge=1,
        le=MAX_ROWS,
        description="rows per forward pass and process; absent: the largest divisor of the batch up to 64",
    )
    learning_rate: Number = Field(5e-3, gt=0, description="peak learning rate")
    learning_rate_end: Number | None = Field(
        None, ge=0, description="learning rate at the last step; absent: 5 % of the peak"
    )
    schedule: Literal["cosine", "exponential", "linear", "wsd", "constant"] = Field(
        "cosine",
        description="shape of the decay after warm-up; wsd holds the peak, then decays linearly over the last part "
        "(also called trapezoidal)",
    )
    decay_fraction: Number = Field(
        0.2, gt=0, le=1, description="of wsd: share of all steps, at the end, over which the learning rate decays"
    )
    warmup_fraction: Number = Field(0.06, ge=0, lt=1, description="share of the steps that warm up linearly")
    adam_beta1: Number = Field(0.9, ge=0, lt=1, description="AdamW's first-moment decay")
    adam_beta2: Number = Field(0.98, ge=0, lt=1, description="AdamW's second-moment decay")
    adam_epsilon: Number = Field(1e-8, gt=0, description="AdamW's denominator offset")
    weight_decay: Number = Field(0.01, ge=0, description="decoupled weight decay")
    max_grad_norm: Number = Field(1.0, gt=0, description="gradients are clipped to this global norm")
    sampling: Literal["balanced", "iid"] = Field(
        "balanced", description="balanced: error-diffused counts per batch; iid: independent draws, as in the paper"
    )
    row_order: Literal["shuffle", "block_shuffle"] = Field(
        "shuffle",
        description="order of a domain's rows in each epoch. shuffle: any row anywhere; block_shuffle: blocks of 256 "
        "rows in random order, mixed 64 at a time, for storage where random reads are slow",
    )
    documents: Literal["joined", "separate"] = Field(
        "joined",
        description="joined: attention sees the whole row; separate: positions restart at EOS and attention stays "
        "within a document (refused for model types that cannot, such as recurrent ones)",
    )
    reading: Literal["on_demand", "ahead"] = Field(
        "on_demand",
        description="ahead: a background thread reads the rows of the next batch. The result does not depend on it",
    )
    max_epochs: Number = Field(
        4.0, gt=0, description="epochs of a domain beyond which repeated text is worth less than new text"
    )
    on_max_epochs: Literal["warn", "error", "renormalise"] = Field(
        "warn",
        description="what happens there. warn: once a domain, and go on; error: stop the run; renormalise: the domain "
        "gets weight 0 and the others are scaled up",
    )
    eval_steps: Count = Field(100, ge=1, description="steps between evaluations on held-out text")
    save_steps: Count = Field(100, ge=1, description="steps between checkpoints")
    logging_steps: Count = Field(20, ge=1, description="steps between log lines")
    save_total_limit: Count = Field(2, ge=1, description="complete checkpoints to keep of a run in progress")
    num_threads: Count | None = Field(
        None, ge=1, le=MAX_PROCESSES, description="CPU threads of torch; absent: all cores"
    )
    arguments: dict[str, Any] = Field(
        {}, description="passed through to transformers.TrainingArguments, such as bf16, report_to, torch_compile"
    )
    overrides: dict[RunName, dict[str, Any]] = Field(
        {}, description="settings that differ for reference, proxy or main, such as {main: {steps: 5000}}"
    )

    def for_run(self, run: RunName) -> TrainingConfig:
        """The settings of one run, its overrides applied and validated."""
        settings = self.model_dump(exclude={"overrides"}) | self.overrides.get(run, {})
        return TrainingConfig.model_validate(settings)

    @property
    def num_tokens(self) -> int:
        """Tokens that the run is trained on."""
        return self.steps * self.global_batch_size * self.sequence_length

    def mixture(self) -> MixtureSettings:
        """How batches are read, for `doremi.mixture`."""
        return MixtureSettings(
            sequence_length=self.sequence_length,
            mode=self.sampling,
            row_order=BlockShuffle() if self.row_order == "block_shuffle" else Shuffle(),
            repetition=RepetitionLimit(self.max_epochs, self.on_max_epochs),
            documents=self.documents,
            reading=self.reading,
        )

    @model_validator(mode="after")
    def _overrides_are_valid(self) -> TrainingConfig:
        for run, changes in self.overrides.items():
            if unknown := set(changes) - set(TrainingConfig.model_fields) | ({"overrides"} & set(changes)):
                raise ValueError(f"overrides.{run}: unknown setting {sorted(unknown)[0]!r}")
            self.for_run(run)
        return self


class ReweightingConfig(Section):
    """Group DRO (Algorithm 1 of the paper), how often it is done, and what may be added to it."""

    rounds: Annotated[WholeNumber, Field(ge=1, le=MAX_MODELS)] | Literal["auto"] = Field(
        1,
        description="iterated DoReMi: each further round trains its reference on the weights of the one before; auto: "
        "until no weight changes by more than the tolerance",
    )
    max_rounds: Count = Field(5, ge=1, le=MAX_MODELS, description="of rounds: auto")
    tolerance: Number = Field(1e-3, gt=0, description="largest change of a weight in a round that counts as none")
    seeds: Count = Field(
        1,
        ge=1,
        le=MAX_MODELS,
        description="proxies to train, with as many seeds; the answer is the mean of theirs, with the spread of each "
        "weight. reference_cache: true saves most of the reference's share of the cost",
    )
    objective: Literal["excess", "hardest", "easiest"] = Field(
        "excess",
        description="what raises a domain's weight. excess: loss above the reference's; hardest (the proxy's loss) and "
        "easiest (minus the reference's) are the paper's ablations",
    )
    step_size: Number = Field(1.0, gt=0, description="η: how fast the adversary's weights move")
    smoothing: Number = Field(1e-3, ge=0, lt=1, description="c: share of uniform weights mixed in at every step")
    allow_absent_domains: bool = Field(
        False, description="allow a proxy batch smaller than the number of domains; unbiased, but noisier"
    )
    weights_update: Literal["exact", "delayed"] = Field(
        "exact",
        description="exact: each step's gradient uses the weights of that very step; with several micro-batches a "
        "process, they are all measured first, which adds a forward pass. delayed: it uses those of the step before, "
        "and adds nothing",
    )
    reference_cache: bool = Field(
        False,
        description="store the reference's losses on disk when they are first computed (4 bytes a token), so that "
        "later epochs, seeds and proxies read them",
    )
    reference_cache_dtype: Literal["float32", "float16"] = Field(
        "float32", description="float16 takes half the space and rounds each loss by at most 0.05 %"
    )
    step_size_schedule: Literal["constant", "inverse_sqrt"] = Field(
        "constant", description="beyond the paper. inverse_sqrt: the step size at step t is η / √t"
    )
    excess_ema: Number = Field(
        0.0, ge=0, lt=1, description="beyond the paper: share of the past in a running mean of the excess losses"
    )
    tail_fraction: Number = Field(
        1.0,
        gt=0,
        le=1,
        description="share of the steps, at the end, whose weights are averaged; beyond the paper below 1",
    )
    min_weight: Number | dict[str, Number] = Field(
        0.0, description="beyond the paper: lower bound on every weight, or by domain"
    )
    max_weight: Number | dict[str, Number] = Field(
        1.0, description="beyond the paper: upper bound on every weight, or by domain"
    )
    max_main_epochs: Number | None = Field(
        None,
        gt=0,
        description="beyond the paper: upper bound on each weight such that the main run sees no domain more often",
    )
    projection: Literal["kl", "euclidean"] = Field("kl", description="how weights are brought within these bounds")
    prior: str | dict[str, Number] | None = Field(
        None,
        description="beyond the paper: weights that the adversary is pulled towards, named as weights.reference is",
    )
    prior_pull: Number = Field(0.0, ge=0, lt=1, description="how strongly, at every step")
    loss_normalisation: Literal["domain_mean", "self_normalised"] = Field(
        "domain_mean",
        description="weight of a token in the proxy's loss. domain_mean: α_i / N_i, the paper's equation 1; "
        "self_normalised: upstream's α_i / Σ α N, with its average that includes α_0, to compare results with it",
    )
    reference_dtype: Literal["float32", "bfloat16"] = Field(
        "float32", description="of the reference's parameters while it is only evaluated"
    )


class EvaluationConfig(Section):
    """Held-out evaluation, during training and at the end."""

    max_tokens_per_domain: Count | None = Field(
        None, ge=1, description="held-out tokens scored per domain, the same cap for all; absent: all of them"
    )
    max_tokens_during_training: Count | None = Field(
        None,
        ge=1,
        description="the same cap for the evaluations every eval_steps, where scoring as much as at the end takes too "
        "long; absent: max_tokens_per_domain",
    )
    batch_size: Count = Field(64, ge=1, le=MAX_ROWS, description="windows per forward pass")
    tasks: list[str] = Field(
        [],
        description="few-shot tasks to ask every compared model, through lm-evaluation-harness (extra `eval`): its "
        "names, YAML files in its format or folders of them (with a /), or paper, the paper's five",
    )
    num_fewshot: Count = Field(
        1, ge=0, le=MAX_MODELS, description="solved examples before each question, the same for every model"
    )
    task_limit: Count | None = Field(None, ge=1, description="documents asked per task, the same for all; absent: all")
    task_checkpoints: Literal["final", "all"] = Field(
        "final",
        description="all: also the checkpoints that are still there (training.save_total_limit), for the average of "
        "the tasks over steps",
    )

    def during_training(self) -> EvaluationConfig:
        """What is scored every eval_steps."""
        cap = self.max_tokens_during_training or self.max_tokens_per_domain
        return EvaluationConfig(max_tokens_per_domain=cap, batch_size=self.batch_size)


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
    return parse(recipe_values.expand_home(content), source=str(path))


def _known_recipe(path: Path) -> str:
    """What to do for one that comes with the package, and is not there yet."""
    name = path.name.removesuffix(".yaml")
    comes_with_us = (Path(__file__).parent / "recipes" / f"{name}.yaml").is_file()
    return f"; `doremi recipe {name} > {name}.yaml` writes the one that comes with doremi" if comes_with_us else ""


def parse(content: Mapping[str, Any], *, source: str = "recipe") -> Recipe:
    """Validate a mapping; all its errors are reported at once, each with the nearest valid key or the value."""
    found = list(recipe_values.problems(content))
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
