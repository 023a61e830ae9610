"""What the project can do, and the tests that do it: a capability is lost where its row names no test any more."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parent

# capability: tests that run it, as FILE::TEST without parameters; files are looked for by name below tests/
CAPABILITIES = {
    "upstream's Arrow folders, weighed by natural(packed) and natural(padded)": [
        "test_migration.py::test_natural_weights_in_both_countings_of_upstream"
    ],
    "upstream's JSON, in and out": [
        "test_weights.py::test_upstreams_unnormalised_json_in_any_order",
        "test_weights.py::test_round_trip_is_exact_and_has_upstreams_two_keys",
    ],
    "the migration page, verbatim": [
        "test_migration.py::test_two_paths_and_no_conversion",
        "test_migration.py::test_a_folder_without_splits",
    ],
    "everything at once": ["test_run.py::test_everything_a_user_gets"],
    "reference, proxy and main one by one, killed in each": [
        "test_run.py::test_killed_in_every_stage_and_restarted_ends_with_the_same_weights"
    ],
    "the search alone, in rounds and with seeds": ["test_rounds.py::test_two_rounds_of_two_proxies"],
    "a trained reference": [
        "test_rounds.py::test_a_trained_model_as_the_reference_gives_the_weights_of_the_run_that_trained_it"
    ],
    "a method and a policy of one's own": ["test_toys.py::test_a_method_and_a_policy_from_plan_to_report"],
    "--nproc 2": ["test_command_line.py::test_killed_interrupted_and_continued_gives_the_weights_of_one_process"],
    "torchrun on two nodes, in jobs that are requeued": ["test_stages.py::test_two_nodes_interrupted_and_continued"],
    "--slurm scripts": ["test_pipeline.py::test_stages_in_their_order", "test_pipeline.py::test_command_line"],
    "preparing by many tasks, here": ["test_cluster.py::test_the_same_bytes"],
    "preparing by many tasks, in a queue": ["test_slurm.py::test_the_jobs_make_the_store_of_a_local_preparation"],
    "preparing by the array of a pipeline": [
        "test_stages.py::test_preparing_in_an_array_gives_the_store_of_one_machine"
    ],
    "evaluation sets that are not trained on": ["test_sets.py"],
    "few-shot tasks, with known scores": [
        "test_downstream.py::test_closed_book_questions_of_known_accuracy",
        "test_downstream.py::test_a_last_word_of_known_accuracy",
        "test_downstream.py::test_squad_by_document",
        "test_downstream.py::test_the_papers_tasks_are_lm_evals",
    ],
    "W&B, offline": ["test_trackers.py::test_each_model_is_a_run_of_wandb_that_a_resumed_one_continues"],
    "FlashAttention, chosen where it is there": [
        "test_configurations.py::test_attention_is_the_choice_of_transformers_unless_it_is_flash"
    ],
    "MixtureLoader, resumed": [
        "test_loader.py::test_elastic_resume_over_ten_epochs_is_bit_exact",
        "test_loader.py::test_resume_within_a_global_batch_with_weights_set_meanwhile",
    ],
    "every command and the Python of the README": [
        "test_readme.py::test_every_command_exists",
        "test_readme.py::test_python_runs",
        "test_readme.py::test_the_recipe_is_valid",
    ],
    "exports to other stacks": ["test_stacks.py", "test_cli_export.py"],
    "perplexity of any model": ["test_newcomer.py::TestLengthOfTheRun"],
    "every causal model type": ["test_model_types.py"],
}


@cache
def named(file: str) -> set[str]:
    """Tests and classes of tests in all files of that name."""
    found = set()
    for path in TESTS.rglob(file):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name.lower().startswith("test"):
                found.add(node.name)
    return found


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_is_tested(capability):
    for test in CAPABILITIES[capability]:
        file, _, name = test.partition("::")
        assert named(file), f"{capability}: there is no {file}"
        assert not name or name in named(file), f"{capability}: no {name} in {file}"
