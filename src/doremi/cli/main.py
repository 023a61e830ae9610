"""The command line: parses, calls the pipeline, prints. Exit codes: 0 done, 1 failed, 2 bad input, 130 interrupted."""

from __future__ import annotations

import argparse
import json
import os
import select
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from doremi import __version__, files, launch
from doremi.cli import tables
from doremi.cli.corpus import add_corpus
from doremi.cli.perplexity import add_perplexity
from doremi.cli.plan import add_plan
from doremi.cli.prepare import add_executor, add_tokenizer_backend, prepare_in_tasks
from doremi.cli.recipes import add_recipe
from doremi.cli.slurm import add_slurm, write_pipeline
from doremi.cli.weights import add_weights, show_weights
from doremi.errors import InputError, RunFailedError, shorten, shown, text_problem
from doremi.launch import console, interruption

if TYPE_CHECKING:
    from doremi.evidence.schema import Results
    from doremi.experiment.opening import Experiment
    from doremi.experiment.recipe import Recipe

TRAINING_VERBS = ("demo", "run", "search", "train")
DEMO_RECIPE = Path(__file__).parents[1] / "recipes" / "demo.yaml"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # before torch: spinning threads starve a busy machine
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    arguments = sys.argv[1:] if arguments is None else arguments
    with interruption.handled():
        return _reported(arguments)


def _reported(arguments: Sequence[str]) -> int:
    """The exit code of one command; why it is not 0 is told on stderr."""
    try:
        return _run_command(arguments)
    except InputError as error:
        return launch.fail(2, str(error))
    except RunFailedError as error:
        return launch.fail(1, f"the run failed: {error}")
    except KeyboardInterrupt as interrupt:
        return launch.fail(launch.INTERRUPTED, f"{str(interrupt) or 'interrupted'}; the same command continues")
    except Exception as error:
        if interruption.happened():  # what a library made of it
            return launch.fail(launch.INTERRUPTED, "interrupted; the same command continues")
        code = _refused_by_system(error)
        if code is None:
            raise
        return code


def _run_command(arguments: Sequence[str]) -> int:
    for argument in arguments:
        if problem := text_problem(argument):
            raise InputError(f"{shown(argument)} {problem}")
    options = build_parser().parse_args(arguments, argparse.Namespace(arguments=arguments))
    console.configure_logging()
    code: int = options.action(options) or 0
    sys.stdout.flush()  # while a reader that has gone can still be noticed
    return code


def _refused_by_system(error: Exception) -> int | None:
    """The exit code where the machine is at fault; None for what may be a bug of ours."""
    if files.is_failed_io(error):
        remedy = "make room" if isinstance(error, OSError) and files.is_full_disk(error) else "see to the disk"
        return launch.fail(1, f"the run failed: {error}; {remedy}, and the same command continues")
    if isinstance(error, PermissionError):
        return launch.fail(2, f"{error.filename}: permission denied")
    if isinstance(error, OSError) and files.is_impossible_path(error):
        return launch.fail(2, f"{shorten(str(error.filename), 200)}: {error.strerror}; check this path")
    if isinstance(error, BrokenPipeError) and _reader_has_gone():
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
        return 1
    return None


def _reader_has_gone() -> bool:
    """Whether nobody reads standard output any more, as after ``| head``."""
    watched = select.poll()
    watched.register(sys.stdout.fileno(), 0)  # errors and hang-ups are told without being asked for
    return bool(watched.poll(0))


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with a command line in one line, as everything else that is wrong is told."""

    def error(self, message: str) -> NoReturn:
        """End with exit code 2."""
        sys.exit(launch.fail(2, f"{shorten(message, 500)}; see `{self.prog} --help`"))


def build_parser() -> argparse.ArgumentParser:
    """All verbs and their flags."""
    parser = _Parser(
        prog="doremi",
        description="How much of each domain to train on: optimised domain weights (DoReMi), and the evidence that "
        "they help.",
        epilog="Start with `doremi demo`; for your own data, write a recipe (`doremi run --help-recipe`).",
    )
    parser.add_argument("--version", action="version", version=f"doremi {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    _add_demo(verbs)
    _add_stages(verbs)
    add_plan(verbs)
    add_recipe(verbs)
    _add_loader(verbs)
    _add_report(verbs)
    add_perplexity(verbs)
    add_weights(verbs)
    add_corpus(verbs)
    return parser


def _add_demo(verbs: argparse._SubParsersAction) -> None:
    demo = verbs.add_parser(
        "demo",
        help="the whole method on text found in this installation, in minutes",
        description="Collects real text that this Python installation already has, optimises its domain weights, "
        "trains models on them and on two simple rules, and reports.",
    )
    _add_recipe_flags(demo)
    _add_nproc(demo)
    demo.set_defaults(action=_run_stage, stage=_run, recipe=DEMO_RECIPE)


def _add_stages(verbs: argparse._SubParsersAction) -> None:
    stages = {
        "run": (_run, "find weights, verify them, report; what is finished is skipped, an interrupted run continues"),
        "search": (_search, "find weights only: train what the methods ask for, write weights.json and a report"),
        "prepare": (_prepare, "tokenise the corpus"),
        "train": (_train, "train one model and what it depends on"),
        "evaluate": (_evaluate, "score the trained models on held-out text, write results.json and print the table"),
    }
    for verb, (function, summary) in stages.items():
        stage = verbs.add_parser(verb, help=summary, description=summary[0].upper() + summary[1:] + ".")
        if verb == "run":
            stage.add_argument("recipe", metavar="RECIPE", type=Path, nargs="?", help="YAML file")
            stage.add_argument("--help-recipe", action="store_true", help="list every key of a recipe, and exit")
            add_slurm(stage)
        else:
            stage.add_argument("recipe", metavar="RECIPE", type=Path, help="YAML file")
        if verb == "train":
            stage.add_argument(
                "--run",
                dest="run_name",
                required=True,
                metavar="NAME",
                help="a method of the recipe: models that verify its answer; or reference; or proxy: the whole search",
            )
        _add_recipe_flags(stage)
        if verb in ("run", "prepare"):
            add_tokenizer_backend(stage)
        if verb == "prepare":
            add_executor(stage)
        if verb in TRAINING_VERBS:
            _add_nproc(stage)
        stage.set_defaults(action=_run_stage, stage=function)


def _add_recipe_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="DIR", help="run directory (default: runs/<name of the recipe>)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change one value of the recipe, such as training.steps=200; repeatable",
    )
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="print the resolved recipe and its plan, as `doremi plan` does; run nothing",
    )


def _add_nproc(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--nproc",
        type=int,
        metavar="N",
        help="train with N processes on this machine, as torchrun --nproc-per-node=N -m doremi does",
    )


def _add_loader(verbs: argparse._SubParsersAction) -> None:
    group = verbs.add_parser("loader", help="look at what will be drawn", description="Look at what will be drawn.")
    kinds = group.add_subparsers(dest="loader_verb", metavar="VERB", required=True)
    inspect = kinds.add_parser(
        "inspect",
        help="rows of each domain against the weights, epochs, first rows",
        description="Works out what the loader of one run will draw from a prepared corpus, without reading a token: "
        "rows of each domain against its weight, epochs, domains that are repeated too often, and the first rows.",
    )
    inspect.add_argument("recipe", metavar="RECIPE", type=Path, help="YAML file")
    inspect.add_argument("--steps", type=int, metavar="N", help="optimizer steps (default: those of the run)")
    inspect.add_argument(
        "--run", dest="run_name", default="reference", metavar="NAME", help="as in `doremi train` (default: reference)"
    )
    inspect.add_argument("--json", action="store_true", help="print JSON instead of a table")
    _add_recipe_flags(inspect)
    inspect.set_defaults(action=_inspect_loader)


def _add_report(verbs: argparse._SubParsersAction) -> None:
    report = verbs.add_parser(
        "report",
        help="write the report of a finished run, or set several side by side",
        description="Of one run directory: writes report.html and report.md in it. Of several: writes one page that "
        "sets their weights, differences, verdicts and costs side by side, and the same as Markdown.",
    )
    report.add_argument("directories", metavar="RUN_DIR", type=Path, nargs="+", help="run directory")
    report.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="page of several run directories (default: comparison.html beside the first)",
    )
    report.set_defaults(action=_report)


def _run_stage(options: argparse.Namespace) -> None:
    """What every verb with a recipe does before and around its own stage."""
    if getattr(options, "help_recipe", False):
        print(tables.recipe_help())
        return
    if options.recipe is None:
        raise InputError("which recipe? Give a YAML file, or see `doremi run --help-recipe`")
    from doremi.experiment import recipe
    from doremi.experiment.run_directory import RunDirectory

    loaded = recipe.load(options.recipe, options.overrides)
    out = options.out or Path("runs") / options.recipe.stem
    if options.dry_run:
        _print_plan(loaded, out)
        return
    if getattr(options, "slurm", None) is None:
        if options.verb in TRAINING_VERBS:
            launch.use_processes(options.nproc, options.arguments)
        elif not launch.is_first():
            return  # the first process does alone what is not training
    # a pipeline trains several models of a directory at once: each training holds its own folder
    with RunDirectory(out).held(alone=options.verb not in ("search", "train")):
        _run_in(loaded, out, options)


def _run_in(loaded: Recipe, out: Path, options: argparse.Namespace) -> None:
    """A verb in its run directory, which is held."""
    if getattr(options, "slurm", None) is not None:
        write_pipeline(loaded, out, options.slurm)
        return
    if options.verb == "prepare" and not prepare_in_tasks(loaded, out, options):
        return  # jobs in a queue do it
    from transformers.utils import logging as transformers_logging

    from doremi.experiment import pipeline

    transformers_logging.disable_progress_bar()  # of saving and loading a model; training has its own
    pipeline.set_threads(loaded)
    if options.verb in TRAINING_VERBS:
        pipeline.check_devices(loaded, out)
    options.stage(pipeline.open_experiment(loaded, out), options)


def _print_plan(recipe: Recipe, out: Path) -> None:
    from doremi import planning

    console.show(recipe.to_yaml(), planning.show(planning.make(recipe, out), recipe))


def _run(experiment: Experiment, options: argparse.Namespace) -> None:
    from doremi.experiment import pipeline

    results = pipeline.run_all(experiment)
    if results is None:
        return  # one of several processes, and not the first
    _print_results(results)
    console.show(f"weights  {experiment.directory.weights}\nreport   {experiment.directory.report}")


def _search(experiment: Experiment, options: argparse.Namespace) -> None:
    from doremi.experiment import pipeline

    pipeline.search(experiment)
    if launch.is_first():
        show_weights(experiment.directory.weights)
        console.show(f"weights  {experiment.directory.weights}\nreport   {experiment.directory.report}")


def _prepare(experiment: Experiment, options: argparse.Namespace) -> None:
    from doremi.corpus import show

    length = experiment.recipe.training.for_run("main").sequence_length
    console.show(show(experiment.store, sequence_length=length, width=console.width()))


def _train(experiment: Experiment, options: argparse.Namespace) -> None:
    from doremi.experiment import pipeline

    pipeline.train_one(experiment, options.run_name)


def _inspect_loader(options: argparse.Namespace) -> None:
    from doremi.experiment import pipeline, recipe
    from doremi.experiment.opening import open_prepared

    loaded = recipe.load(options.recipe, options.overrides)
    out = options.out or Path("runs") / options.recipe.stem
    if options.dry_run:
        _print_plan(loaded, out)
        return
    if not launch.is_first():
        return
    experiment = open_prepared(loaded, out)
    told = pipeline.forecast_run(experiment, options.run_name, num_steps=options.steps)
    if options.json:
        print(json.dumps(told.to_dict(), indent=1))
    else:
        console.show(tables.forecast_table(told))


def _evaluate(experiment: Experiment, options: argparse.Namespace) -> None:
    from doremi.experiment import pipeline

    _print_results(pipeline.evaluate(experiment))


def _print_results(results: Results) -> None:
    from doremi.report.table import SummaryTable

    console.show(SummaryTable(results))


def _report(options: argparse.Namespace) -> None:
    if len(options.directories) > 1:
        from doremi.report.side_by_side import write_comparison

        console.show(write_comparison(options.directories, out=options.out))
        return
    from doremi.experiment.run_directory import RunDirectory
    from doremi.report.render import write_report

    if options.out is not None:
        raise InputError("--out is for several run directories; the report of one lies in it")
    directory = options.directories[0]
    with RunDirectory(directory).held() if directory.is_dir() else nullcontext():
        console.show(write_report(directory))


if __name__ == "__main__":
    sys.exit(main())
