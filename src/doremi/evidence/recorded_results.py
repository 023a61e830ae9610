"""The schema of `results.json`: what an experiment measured, checked before any of it is shown.

Keys that are not listed here are ignored, so a writer may add to the file; a number that could not be measured is null.
What has a default may be missing: files written by hand or by an older version are shown as far as they go.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from doremi import files, redaction
from doremi.errors import InputError, MissingFileError
from doremi.evidence.recorded import Curves, Trajectory
from doremi.evidence.recorded_tasks import FewShot
from doremi.evidence.schema import ByName, Comparison, ExplainedGain, Measured, Part, TotalCost

BASELINE = "baseline"  # trained on the reference weights
MAIN = "main"  # trained on DoReMi's weights
NUM_SHOWN_PROBLEMS = 3


class Domain(Part):
    """One domain: its size, its weight before and after, and the held-out loss of every run on it."""

    tokens: int
    held_out_tokens: int
    held_out_documents: int | None = None
    reference_weight: Measured
    doremi_weight: Measured
    nats: ByName  # per target token
    bits_per_byte: ByName = Field(default_factory=dict)


class Cost(Part):
    """What training took."""

    train_seconds: Measured  # of all seeds
    num_parameters: int
    num_tokens: int  # that one model was trained on, over all steps; of the search, all of its models
    flops: Measured = None  # of the same models as the tokens


class SeedRun(Part):
    """One seed of a run."""

    folder: str
    train_seconds: Measured
    nats: ByName  # by domain
    uniform_mean_nats: Measured
    reference_mean_nats: Measured
    worst_nats: Measured


class Run(Cost):
    """The models trained on one weight vector; losses elsewhere are means over their seeds."""

    weights: str  # the label of the weights they were trained on
    domain_weights: ByName
    seed: int
    seeds: list[int] = Field(default_factory=list)
    steps: int
    epochs: ByName  # how often the first seed saw each domain's training text
    folder: str
    by_seed: dict[str, SeedRun] = Field(default_factory=dict)

    @property
    def all_seeds(self) -> list[int]:
        """Every seed, of older files the only one."""
        return self.seeds or [self.seed]


class Summaries(Part):
    """Three ways to put the domains of one run into one number, nats per token, by run."""

    uniform_mean_nats: ByName
    reference_mean_nats: ByName
    worst_nats: ByName


class WithoutFloor(Summaries):
    """The summaries over the domains that DoReMi did not all but drop: at least a tenth of the reference weight."""

    domains_at_floor: list[str]


class Convergence(Part):
    """How far the weights moved, over how many domains they are spread, and how steady they are."""

    max_change: Measured = None  # from the reference weights to the answer
    effective_num_domains: Measured = None
    status: str | None = None  # of the rounds
    changes: list[Measured] = Field(default_factory=list)  # largest change of a weight in each round
    spread: ByName | None = None  # standard deviation of each weight over the proxies' seeds


class Alarm(Part):
    """Something that makes the weights doubtful, and what to do about it."""

    name: str
    finding: str
    remedy: str


class Results(Summaries):
    """All of `results.json`. ``costs`` holds what finding the weights took, by model (reference, proxy)."""

    format: Literal[1]
    domains: dict[str, Domain]
    runs: dict[str, Run]
    worst_domain: dict[str, str | None]
    without_floor: WithoutFloor | None = None
    steps_to_match: Measured  # where main reached the baseline's final reference-weighted mean
    num_better: int
    num_worse: int
    num_domains: int
    verdict: str
    curves: dict[str, Curves] = Field(default_factory=dict)
    trajectory: Trajectory | None = None
    convergence: Convergence | None = None
    alarms: list[Alarm] = Field(default_factory=list)
    costs: dict[str, Cost] = Field(default_factory=dict)
    cost: TotalCost | None = None
    comparisons: list[Comparison] = Field(default_factory=list)
    control: dict[str, ExplainedGain] | None = None
    tasks: FewShot | None = None
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _has_both_runs(self) -> Results:
        missing = [name for name in (BASELINE, MAIN) if name not in self.runs]
        if missing:
            raise ValueError(f"no run named {' and '.join(map(repr, missing))}; there are {list(self.runs)}")
        return self

    @model_validator(mode="after")
    def _compares_its_own_runs_and_domains(self) -> Results:
        for found in self.comparisons:
            if unknown := [name for name in (found.tuned, found.baseline) if name not in self.runs]:
                raise ValueError(f"a comparison of {unknown[0]!r}, which is no run; there are {list(self.runs)}")
            for differences in (found, found.documents):
                if other := sorted(differences.domains.keys() ^ self.domains.keys()):
                    raise ValueError(f"the comparison of {found.tuned!r} has other domains than the file: {other[:3]}")
        return self

    @property
    def headline(self) -> Comparison | None:
        """The comparison that the experiment is for: main against baseline."""
        return next((c for c in self.comparisons if (c.tuned, c.baseline) == (MAIN, BASELINE)), None)

    @property
    def run_names(self) -> list[str]:
        """Baseline and main first, then the others in the order of the file."""
        return [BASELINE, MAIN, *(name for name in self.runs if name not in (BASELINE, MAIN))]


def load(run_dir: Path) -> Results:
    """Read and check ``run_dir/results.json``.

    Raises:
        MissingFileError: there is no such folder or file.
        InputError: it is not JSON, or does not follow the schema; the message lists the first few problems.
    """
    if not run_dir.is_dir():
        raise MissingFileError(f"{run_dir}: no such run directory; `doremi run RECIPE` makes one")
    path = run_dir / "results.json"
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; `doremi evaluate RECIPE` writes it once the runs are trained")
    results = parse(files.read_json(path), source=str(path))
    if command := results.provenance.get("command"):
        results.provenance["command"] = redaction.published(str(command))
    return results


def read_public(path: Path) -> str:
    """The text of a file of a run directory as others may see it: without secrets, paths shortened.

    Older versions wrote both.

    Raises:
        MissingFileError: there is none.
        InputError: it is not UTF-8.
    """
    try:
        return redaction.published(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file; the folder is not a finished run directory") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text (byte {error.start})") from None


def parse(content: Mapping[str, Any], *, source: str = "results") -> Results:
    """Check ``content``, the parsed JSON, against the schema.

    Raises:
        InputError: it does not follow the schema; the message lists the first few problems.
    """
    try:
        return Results.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: {_explain(error)}") from None


def _explain(error: ValidationError) -> str:
    problems = [
        f"{'.'.join(map(ascii, problem['loc'])) or 'the file'}: {problem['msg']}"
        for problem in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f" (and {len(problems) - NUM_SHOWN_PROBLEMS} more)" if len(problems) > NUM_SHOWN_PROBLEMS else ""
    return (
        f"not the results of an experiment: {'; '.join(problems[:NUM_SHOWN_PROBLEMS])}{more}. "
        "Delete the file and run `doremi evaluate RECIPE` to write it anew"
    )
