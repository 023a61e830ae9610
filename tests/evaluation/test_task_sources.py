"""What the names in ``evaluation.tasks`` stand for."""

from __future__ import annotations

import pytest

from doremi.errors import InputError, MissingFileError
from doremi.evaluation.task_sources import PAPER_TASKS, TaskSource, resolve


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_names_are_kept_once_and_in_order():
    assert resolve(["lambada_openai", "arc_easy", "lambada_openai"]) == [
        TaskSource("lambada_openai"),
        TaskSource("arc_easy"),
    ]
    assert [source.name for source in resolve(["arc_easy", "paper"])] == ["arc_easy", *PAPER_TASKS]


def test_files_and_folders(tmp_path):
    """A folder stands for its tasks; what they include and groups of them do not count."""
    qa = write(tmp_path / "tasks" / "qa" / "default.yaml", "task: qa\nprocess_docs: !function utils.process\n")
    cloze = write(tmp_path / "tasks" / "cloze.yml", "include: qa/shared.yaml\ntask: cloze\n")
    write(tmp_path / "tasks" / "qa" / "shared.yaml", "dataset_path: json\n")
    group = write(tmp_path / "tasks" / "both.yaml", "group: both\ntask: [qa, cloze]\n")
    assert resolve([f"{tmp_path}/tasks"]) == [TaskSource("cloze", cloze), TaskSource("qa", qa)]
    assert resolve([str(group), str(qa)]) == [TaskSource("both", group), TaskSource("qa", qa)]


def test_the_digest_covers_what_lies_beside_the_file(tmp_path):
    path = write(tmp_path / "qa.yaml", "task: qa\n")
    (source,) = resolve([str(path)])
    before = source.digest()
    write(tmp_path / "utils.py", "def process(documents): ...\n")
    assert source.digest() != before
    assert TaskSource("qa").digest() != TaskSource("other").digest()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset_path: json\n", r"qa\.yaml: defines no task; a file in lm-eval's format has `task: <name>`"),
        ("task: [a\n", r"qa\.yaml: not valid YAML: .*line 2"),
        ("- task\n", r"qa\.yaml: expected a task in lm-eval's format"),
    ],
)
def test_files_that_define_no_task(tmp_path, text, message):
    with pytest.raises(InputError, match=message):
        resolve([str(write(tmp_path / "qa.yaml", text))])


def test_what_does_not_exist(tmp_path):
    with pytest.raises(MissingFileError, match=r"task '.*/qa\.yaml': no such file or folder"):
        resolve([f"{tmp_path}/qa.yaml"])
    with pytest.raises(MissingFileError, match=r"task '\./nowhere': no such file or folder"):
        resolve(["./nowhere"])
    with pytest.raises(InputError, match=r": no task in it"):
        resolve([f"{tmp_path}/"])


def test_one_name_for_two_tasks(tmp_path):
    one, other = (write(tmp_path / folder / "qa.yaml", "task: triviaqa\n") for folder in "ab")
    with pytest.raises(
        InputError, match=f"two tasks are called 'triviaqa': {one} and {other}; results are kept by name"
    ):
        resolve([str(one), str(other)])
    with pytest.raises(InputError, match="two tasks are called 'triviaqa': lm-eval's own and"):
        resolve(["paper", str(one)])
