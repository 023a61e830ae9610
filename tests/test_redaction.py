"""What must not leave: secrets by name and by form, wherever a recipe is shown; paths as others can read them."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import yaml

from doremi import launch, redaction
from doremi.cli.main import main
from doremi.errors import InputError
from doremi.experiment import recipe
from doremi.experiment.run_directory import RunDirectory
from doremi.launch import console

TOKEN = "hf_abcdefghijklmnopqrstuvwxyz"
SECRETS = {
    "hub_token": "mine-and-mine-alone",
    "password": "correct horse",
    "aws_secret_access_key": "wJalrXUtnFEMI/K7MDENG",
    "storage_options": {"credentials": {"user": "u5er", "key": "k3y"}},
    "url": "https://me:pa55word@example.org/data",
    "signed": "https://example.org/x?X-Amz-Signature=abcd1234&a=1",
    "environment": f"HF_TOKEN={TOKEN} WANDB_API_KEY=0123abcd",
}
HIDDEN = (
    "mine-and-mine-alone",
    "correct horse",
    "wJalrXUtnFEMI",
    "u5er",
    "k3y",
    "pa55word",
    "abcd1234",
    TOKEN,
    "0123abcd",
)


@pytest.mark.parametrize(
    "name", ["hub_token", "HF_TOKEN", "apiKey", "aws_access_key_id", "s3.secret", "db-password", "token"]
)
def test_names_of_secrets(name):
    assert redaction.is_secret(name)


@pytest.mark.parametrize(
    "name",
    [
        "eos_token",
        "tokenizer",
        "max_tokens_per_domain",
        "num_tokens",
        "keys",
        "corpus.tokenizer.eos_token",
        "pad_token",
    ],
)
def test_names_of_what_is_none(name):
    assert not redaction.is_secret(name)


def test_public_shows_no_secret_and_everything_else():
    shown = str(redaction.public({**SECRETS, "eos_token": "</s>", "steps": 3}))
    assert not [secret for secret in HIDDEN if secret in shown]
    assert "'eos_token': '</s>', 'steps': 3" in shown
    assert "https://***@example.org/data" in shown
    assert "X-Amz-Signature=***&a=1" in shown


def test_a_domain_with_such_a_name_keeps_its_weight():
    weights = {"weights": {"reference": {"secret": 0.25, "cookie": 3, "web": 0.75}}}
    assert redaction.public(weights) == redaction.identity(weights) == weights
    assert redaction.redact('{"secret": 0.25, "cookie": 3}') == '{"secret": 0.25, "cookie": 3}'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("--set training.arguments.hub_token=abc --out o", "--set training.arguments.hub_token=*** --out o"),
        ("{hub_token: abc, bf16: true}", "{hub_token: ***, bf16: true}"),
        ("s3://key:secret@bucket/a and ftp://u@h", "s3://***@bucket/a and ftp://***@h"),
        (f"got '{TOKEN}'", "got '***'"),
        ("Authorization: Bearer abcdefgh12345", "Authorization: *** ***"),
        ("user@example.org wrote a@b", "user@example.org wrote a@b"),
        ("corpus.tokenizer.eos_token=<eos>", "corpus.tokenizer.eos_token=<eos>"),
        ("token: null", "token: null"),
        (
            "training.arguments.hub_token: Input should be a string",
            "training.arguments.hub_token: Input should be a string",
        ),
        ("token: <|endoftext|> is not one", "token: <|endoftext|> is not one"),
        ('{"a": 1, "hub_token": "abc"}', '{"a": 1, "hub_token": ***}'),
        ("a: 1\n  hub_token: abc\n", "a: 1\n  hub_token: ***\n"),
        ("data/token=llama/*", "data/token=llama/*"),
    ],
)
def test_redact(text, expected):
    assert redaction.redact(text).replace("*** abcdefgh12345", "*** ***") == expected


def test_identity_knows_no_secret_and_leaves_all_else_alone():
    plain = {"a": "x", "b": [1, "s3://bucket/y"], "c": None}
    assert redaction.identity(plain) == plain
    assert redaction.identity(plain | {"hub_token": "1"}) == plain
    assert redaction.identity({"p": "s3://a:b@bucket/y"}) == {"p": "s3://bucket/y"}


OF_A_MODEL = {"models": {"main": {"overrides": {"audio_token": "<a>"}}}}


@pytest.mark.parametrize("content", [{"path": "data/token=llama/*"}, {"path": "token=llama/*"}, OF_A_MODEL])
def test_a_digest_loses_nothing_that_changes_the_result(content):
    assert redaction.identity(content) == content


def test_a_partitioned_path_is_no_secret():
    content = {"path": "data/token=llama/*", **OF_A_MODEL}
    assert redaction.public(content) == content
    assert not redaction.secrets(content)


def test_what_is_masked_is_what_identity_leaves_out():
    """Else a recipe that was written masked would not be its own any more, or a new token would be a new run."""
    plain = {"models": {"main": {"path": "m"}}, "training": {"overrides": {"main": {"arguments": {}}}}, "set_up": ["x"]}
    secret = {
        "models": {"main": {"path": "https://me:pa55@host/m"}},
        "training": {"overrides": {"main": {"arguments": {"hub_token": "t"}}}},
        "set_up": ["export WANDB_API_KEY=a/b+c", "curl https://host/x?token=abc"],
    }
    assert redaction.identity(plain) == plain
    assert redaction.secrets(secret) == [
        "models.main.path",
        "training.overrides.main.arguments.hub_token",
        "set_up.0",
        "set_up.1",
    ]
    text = str(redaction.public(secret)) + str(redaction.identity(secret))
    assert not [part for part in ("pa55", "'t'", "a/b+c", "abc") if part in text]
    assert redaction.identity(secret)["training"] == plain["training"]


def test_what_is_shown_is_escaped_and_without_secrets(capsys):
    console.show("s3://me:pa55word@bucket/a\x1b[2J")
    assert capsys.readouterr().out == "s3://***@bucket/a\\x1b[2J\n"


# ---- recipes ----


def write_recipe(folder, **arguments):
    content = {
        "corpus": {"inputs": [{"path": str(folder / "text.jsonl"), "domain_field": "domain"}]},
        "training": {"arguments": arguments},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_another_token_is_the_same_recipe_and_the_same_run(tmp_path):
    """And so is none: the directory may be continued, and what is finished in it is."""
    directory = RunDirectory(tmp_path / "out")
    loaded = [
        recipe.load(write_recipe(tmp_path, **arguments)) for arguments in ({"hub_token": "a"}, {"hub_token": "b"}, {})
    ]
    assert len({found.digest for found in loaded}) == 1
    for found in loaded:
        directory.claim(found)
        directory.weights.write_text("{}")  # something is finished
        assert "hub_token: '***'" in directory.recipe.read_text() or found is loaded[-1]
    with pytest.raises(InputError, match=r"training.arguments.bf16 differs"):
        directory.claim(recipe.load(write_recipe(tmp_path, bf16=True)))


def test_a_recipe_that_was_written_without_its_secret_says_so(tmp_path):
    directory = RunDirectory(tmp_path / "out")
    directory.claim(recipe.load(write_recipe(tmp_path, hub_token="a")))
    with pytest.raises(InputError, match=r"training.arguments.hub_token: a secret was left out"):
        recipe.load(directory.recipe)
    assert recipe.load(directory.recipe, ["training.arguments.hub_token=c"]).training.arguments == {"hub_token": "c"}


def test_home_is_written_as_a_tilde_and_read_back(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    directory = RunDirectory(tmp_path / "out")
    loaded = recipe.load(write_recipe(tmp_path))
    directory.claim(loaded)
    assert "path: ~/text.jsonl" in directory.recipe.read_text()
    assert recipe.load(directory.recipe) == loaded
    directory.weights.write_text("{}")
    directory.claim(loaded)


@pytest.mark.parametrize("verb", [["run", "--dry-run"], ["plan"], ["run", "--slurm", "1"], ["run"], ["prepare"]])
def test_no_verb_prints_or_keeps_a_secret(tmp_path, capsys, caplog, verb):
    (tmp_path / "text.jsonl").write_text('{"text": "a", "domain": "x"}\n')
    path = write_recipe(tmp_path, **SECRETS)
    main([*verb, str(path), "--out", str(tmp_path / "out"), "--set", "training.arguments.token=mine-and-mine-alone"])
    printed = "".join(capsys.readouterr()) + caplog.text
    kept = "".join(file.read_text(errors="replace") for file in (tmp_path / "out").rglob("*") if file.is_file())
    assert not [secret for secret in HIDDEN if secret in printed + kept]


def test_jobs_get_their_secrets_by_the_environment(tmp_path, capsys):
    (tmp_path / "text.jsonl").write_text('{"text": "a", "domain": "x"}\n')
    path = write_recipe(tmp_path)
    line = "cluster.set_up=['export HF_TOKEN=abc']"
    assert main(["run", str(path), "--slurm", "1", "--out", str(tmp_path / "out"), "--set", line]) == 2
    assert "cluster.set_up.0: a secret, which jobs would read from a file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# ---- streams ----


def test_errors_and_logs_are_redacted_and_harmless(capsys):
    launch.fail(2, f"\x1b[2J hub_token={TOKEN}\nsecond line")
    assert capsys.readouterr().err == "doremi: \\x1b[2J hub_token=***\nsecond line\n"
    record = logging.LogRecord("doremi", logging.INFO, "", 0, "%s: s3://a:b@c \u202e", ("x\x07",), None)
    assert console.HarmlessFormatter("%(message)s").format(record) == "x\\x07: s3://***@c \\u202e"
    console.show("a\x1b[2J\tb\nc")
    assert capsys.readouterr().out == "a\\x1b[2J\tb\nc\n"


def test_published_paths_are_those_of_the_working_directory_or_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    here, home = Path.cwd(), tmp_path
    text = f"run {here}/r.yaml --out {here} --set corpus.inputs=[{{path: {home}/data/x}}] {home}-other/y /etc/z"
    assert (
        redaction.published(text)
        == f"run r.yaml --out . --set corpus.inputs=[{{path: ~/data/x}}] {home}-other/y /etc/z"
    )


def test_trackers_see_no_secret(tmp_path):
    from doremi.training.arguments import training_arguments
    from doremi.training.config import TrainingConfig

    config = TrainingConfig(arguments={"hub_token": TOKEN, "use_cpu": True}, global_batch_size=4)
    arguments = training_arguments(config, folder=tmp_path, seed=0, name="x")
    assert arguments.hub_token == TOKEN
    assert TOKEN not in arguments.to_json_string() + str(arguments.to_sanitized_dict())


def test_a_report_hides_what_older_versions_wrote(tmp_path):
    from doremi.report.render import write_report
    from tests.report.synthetic import make_results, write_run

    results = make_results(3, num_recorded=5)
    results["provenance"]["command"] = f"doremi run {Path.cwd()}/r.yaml --set training.arguments.hub_token=abc123"
    write_run(tmp_path, results)
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"training": {"arguments": {"hub_token": "abc123"}}}))
    page = write_report(tmp_path)
    for text in (page.read_text(), page.with_suffix(".md").read_text()):
        assert "abc123" not in text
        assert str(Path.cwd()) not in text
        assert "r.yaml --set training.arguments.hub" in text.replace("\\", "")
