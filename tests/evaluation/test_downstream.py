"""Few-shot tasks with lm-eval on models whose answers are known, and on data in lm-eval's own format."""

from __future__ import annotations

import json
import re
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import datasets
import lm_eval
import numpy as np
import pytest
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.tasks import TaskManager
from transformers import LlamaConfig, LlamaForCausalLM

from doremi.errors import InputError, MissingFileError
from doremi.evaluation import downstream, harness, language_model, perplexity, squad
from doremi.evaluation.few_shot import FewShot
from doremi.evaluation.task_sources import PAPER_TASKS, TaskSource
from tests.evaluation import bigrams

CAPITALS = {
    "France": "Paris",
    "Italy": "Rome",
    "Spain": "Madrid",
    "Greece": "Athens",
    "Norway": "Oslo",
    "Egypt": "Cairo",
    "Peru": "Lima",
    "Cuba": "Havana",
}
WORDS = ["Capital", "of", *CAPITALS, *CAPITALS.values()]
ASKED = ["France", "Italy", "Spain", "Greece"]
GENERATION = {
    "output_type": "generate_until",
    "generation_kwargs": {"until": ["\n"]},
    "filter_list": [{"name": "strip", "filter": [{"function": "remove_whitespace"}, {"function": "take_first"}]}],
}
EXACT_MATCH = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
NO_GENERATION = dict.fromkeys(GENERATION)
LAMBADA = NO_GENERATION | {
    "output_type": "loglikelihood",
    "doc_to_target": "{{' ' + capital}}",
    "metric_list": [
        {"metric": "perplexity", "aggregation": "perplexity", "higher_is_better": False},
        {"metric": "acc", "aggregation": "mean", "higher_is_better": True},
    ],
}


def rows(countries):
    return [{"country": country, "capital": CAPITALS[country]} for country in countries]


def write_task(folder, name="capitals", *, train=tuple(CAPITALS)[4:], test=tuple(ASKED), **config):
    """A task in lm-eval's format, its data beside it; returns the YAML file."""
    folder.mkdir(parents=True, exist_ok=True)
    data_files = {}
    for split, countries in {"train": train, "test": test}.items():
        if countries:
            data_files[split] = str(folder / f"{name}-{split}.json")
            Path(data_files[split]).write_text("".join(json.dumps(row) + "\n" for row in rows(countries)))
    task = {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": data_files, "cache_dir": str(folder / "cache")},
        "training_split": "train" if train else None,
        "test_split": "test",
        "doc_to_text": "Capital of {{country}}",
        "doc_to_target": "{{capital}}",
        "metric_list": [EXACT_MATCH],
        "metadata": {"version": 1.5},
    }
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(task | GENERATION | config))
    return path


def knows(*countries):
    """The bigrams of a model that knows the capitals of these."""
    return {f" {country}": f" {CAPITALS[country]}" for country in countries}


@pytest.fixture
def model_folder(tmp_path):
    return bigrams.save(tmp_path / "model", WORDS, knows("France", "Spain", "Greece"))


def evaluate(tmp_path, model_folder, *tasks, batch_size=2, **few_shot):
    found = downstream.evaluate_tasks(
        model_folder,
        [str(task) for task in tasks],
        results=tmp_path / "results",
        batch_size=batch_size,
        few_shot=FewShot(**few_shot),
    )
    assert len(found) == 1
    return next(iter(found.values()))


class Listener(LM):
    """Answers by rule, and keeps what it was asked."""

    def __init__(self, answer=lambda prompt: ""):
        super().__init__()
        self._answer = answer
        self.prompts = []

    def generate_until(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [self._answer(request.args[0]) for request in requests]

    def loglikelihood(self, requests):
        self.prompts += [request.args[0] for request in requests]
        return [(-1.0, True) for _ in requests]

    def loglikelihood_rolling(self, requests):
        raise NotImplementedError


def listen(path, *, listener=None, **few_shot):
    listener = listener or Listener()
    source = TaskSource(yaml.safe_load(path.read_text())["task"], path)
    return harness.evaluate(listener, source, few_shot=FewShot(**few_shot)), listener.prompts


def test_closed_book_questions_of_known_accuracy(tmp_path, model_folder):
    found = evaluate(tmp_path, model_folder, write_task(tmp_path / "tasks"))
    assert (found.task, found.metric, found.version, found.higher_is_better) == ("capitals", "exact_match", "1.5", True)
    assert found.scores == {"0": 1.0, "1": 0.0, "2": 1.0, "3": 1.0}  # not Italy
    assert (found.value, found.num_documents, found.num_fewshot, found.num_truncated) == (0.75, 4, 1, 0)
    assert found.standard_error == pytest.approx(0.25)  # √(0.75 · 0.25 · 4/3 / 4)


def test_the_first_filter_counts(tmp_path, model_folder):
    """As answers come, they begin with a space, which is no exact match."""
    as_it_comes = {"name": "none", "filter": [{"function": "take_first"}]}
    path = write_task(tmp_path / "tasks", filter_list=[*GENERATION["filter_list"], as_it_comes])
    found = evaluate(tmp_path, model_folder, path)
    assert (found.value, found.num_documents) == (0.75, 4)
    path = write_task(tmp_path / "tasks", filter_list=[as_it_comes, *GENERATION["filter_list"]])
    assert evaluate(tmp_path, model_folder, path).value == 0


def test_a_last_word_of_known_accuracy(tmp_path, model_folder):
    """LAMBADA's format. Its perplexity comes first there, but accuracy is what is compared."""
    found = evaluate(tmp_path, model_folder, write_task(tmp_path / "tasks", **LAMBADA))
    assert (found.metric, found.value, found.scores["1"]) == ("acc", 0.75, 0.0)


def test_a_metric_that_is_no_mean_over_documents(tmp_path):
    """Rolling perplexity by word: each word of "Capital of France" follows the one before with probability 0.9."""
    following = {bigrams.EOS: "Capital", "Capital": " of", " of": " France"}
    folder = bigrams.save(tmp_path / "model", WORDS, following)
    path = write_task(
        tmp_path / "tasks",
        test=["France", "France"],
        **NO_GENERATION
        | {
            "output_type": "loglikelihood_rolling",
            "num_fewshot": 0,
            "doc_to_text": "",
            "doc_to_target": "Capital of {{country}}",
            "metric_list": [
                {"metric": "word_perplexity", "aggregation": "weighted_perplexity", "higher_is_better": False}
            ],
        },
    )
    found = evaluate(tmp_path, folder, path)
    assert (found.metric, found.higher_is_better, found.num_fewshot) == ("word_perplexity", False, 0)
    assert found.value == pytest.approx(1 / 0.9, rel=1e-6)
    assert (found.standard_error, found.scores, found.num_documents) == (None, {}, 2)


def test_every_model_gets_the_same_prompts(tmp_path):
    path = write_task(tmp_path / "tasks")
    (one, prompts), (other, others) = (listen(path, listener=Listener(answer)) for answer in (str.lower, str.upper))
    assert prompts == others
    assert one.prompts_digest == other.prompts_digest
    reseeded, reseeded_prompts = listen(path, seed=1)
    assert prompts != reseeded_prompts
    assert one.prompts_digest != reseeded.prompts_digest
    for prompt, country in zip(prompts, ASKED, strict=True):
        shot, asked = prompt.split("\n\n")
        assert asked == f"Capital of {country}"
        assert re.fullmatch(r"Capital of (Norway Oslo|Egypt Cairo|Peru Lima|Cuba Havana)", shot)


@pytest.mark.parametrize("num_fewshot", [0, 3])
def test_number_of_shots(tmp_path, num_fewshot):
    found, prompts = listen(write_task(tmp_path / "tasks"), num_fewshot=num_fewshot)
    assert found.num_fewshot == num_fewshot
    assert [prompt.count("\n\n") for prompt in prompts] == [num_fewshot] * 4


def test_no_document_is_among_its_own_shots(tmp_path):
    """Of documents without a training split, lm-eval by itself shows the asked one too."""
    path = write_task(tmp_path / "tasks", train=(), test=["France", "Italy"])
    for seed in range(8):
        _, prompts = listen(path, seed=seed)
        assert prompts == [
            "Capital of Italy Rome\n\nCapital of France",
            "Capital of France Paris\n\nCapital of Italy",
        ]


def test_the_limit_takes_documents_from_all_over(tmp_path):
    found, prompts = listen(write_task(tmp_path / "tasks"), limit=2, num_fewshot=0)
    assert prompts == ["Capital of France", "Capital of Spain"]
    assert list(found.scores) == ["0", "2"]
    found, _ = listen(write_task(tmp_path / "tasks"), limit=9)
    assert list(found.scores) == ["0", "1", "2", "3"]


def test_global_generators_are_left_as_they_were(tmp_path):
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1).item(), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    listen(write_task(tmp_path / "tasks"))
    assert (torch.rand(1).item(), np.random.rand()) == expected


def random_model(folder, *, num_positions=32, seed=0):
    tokenizer = bigrams.tokenizer(WORDS)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=num_positions,
        initializer_range=0.5,
        bos_token_id=0,
        eos_token_id=0,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def requests(kind, *arguments):
    return [Instance(request_type=kind, doc={}, arguments=each, idx=0) for each in arguments]


def random_texts(lengths, seed=0):
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for length in lengths]


@pytest.mark.parametrize("batch_size", [3, 16])
def test_answers_do_not_depend_on_the_batch(tmp_path, batch_size):
    folder = random_model(tmp_path / "model")
    one, many = (language_model.load(folder, batch_size=size) for size in (1, batch_size))
    texts = random_texts([1, 3, 9, 4, 14, 2, 7])
    asked = requests("generate_until", *((text, {"until": ["\n"], "max_gen_toks": 8}) for text in texts))
    answers = one.generate_until(asked)
    assert answers == many.generate_until(asked)
    assert len(set(answers)) > 3
    pairs = requests("loglikelihood", *((text, " Paris Rome") for text in texts))
    np.testing.assert_allclose(
        [nats for nats, _ in one.loglikelihood(pairs)], [nats for nats, _ in many.loglikelihood(pairs)], rtol=1e-6
    )


class TextStore:
    """Texts as held-out documents of one domain."""

    sets = ()

    def __init__(self, tokenizer, texts):
        self.eos_token_id = tokenizer.eos_token_id
        self._documents = [np.array(tokenizer.encode(text)) for text in texts]

    def documents(self, name, split):
        return iter(self._documents)

    def num_tokens(self, name, split):
        return sum(len(document) + 1 for document in self._documents)

    def num_documents(self, name, split):
        return len(self._documents)

    def num_bytes(self, name, split):
        return 0


@pytest.mark.parametrize("length", [1, 12, 13, 24, 31, 50])
def test_held_out_nats_are_those_of_rolling_log_likelihood(tmp_path, length):
    """One and several windows of 12 tokens, the last one whole or filled up with context."""
    model = language_model.load(random_model(tmp_path / "model", num_positions=12), batch_size=3)
    texts = random_texts([length, length], seed=length)
    assert [len(model.tok_encode(text)) for text in texts] == [length, length]
    store = TextStore(model.tokenizer, texts)
    held_out = perplexity.collect(store, ["x"], sequence_length=12, max_tokens_per_domain=None)
    (nats,) = perplexity.nats_sums(model.model, held_out, batch_size=3)
    rolling = model.loglikelihood_rolling(requests("loglikelihood_rolling", *((text,) for text in texts)))
    assert nats == pytest.approx(-sum(rolling), rel=1e-6)


def test_prompts_that_do_not_fit_are_counted(tmp_path, model_folder):
    """64 positions, half of them for the answer: 32 for the prompt. Seven shots of four words and two line ends do
    not fit; the question at the end stays, so that the model's answers are the same.
    """
    path = write_task(tmp_path / "tasks", train=(*list(CAPITALS)[4:], *CAPITALS))
    assert evaluate(tmp_path, model_folder, path, num_fewshot=4).num_truncated == 0  # 4 · 6 + 3 words
    found = evaluate(tmp_path, model_folder, path, num_fewshot=5)  # 33
    assert (found.num_truncated, found.value) == (4, 0.75)


def test_which_prompts_fit(tmp_path):
    """Into 12 positions go 12 tokens of input: a prompt of 12 and one word to score, which is itself no input."""
    model = language_model.load(random_model(tmp_path / "model", num_positions=12), batch_size=1)
    fits, longer, whole = random_texts([12, 13, 50])
    assert not model.truncates([(fits, " Paris"), (whole,)])
    assert model.truncates([(fits, " Paris"), (longer, " Paris")])
    fits, longer = random_texts([9, 10])
    assert not model.truncates([(fits, {"until": ["\n"], "max_gen_toks": 3})])
    assert model.truncates([(longer, {"until": ["\n"], "max_gen_toks": 3})])


def test_answers_longer_than_the_model_are_cut_short(tmp_path):
    """A task may ask for more tokens than the model has positions; lm-eval would stop at an assertion."""
    folder = bigrams.save(tmp_path / "model", WORDS, {" France": " Paris", " Paris": " Paris"})
    path = write_task(tmp_path / "tasks", generation_kwargs={"until": ["\n"], "max_gen_toks": 500})
    assert evaluate(tmp_path, folder, path).value == 0


def test_a_group_is_all_its_documents(tmp_path, model_folder):
    folder = tmp_path / "tasks"
    write_task(folder, "west", test=["France", "Italy", "Spain"])
    write_task(folder, "east", test=["Greece"])
    (folder / "europe.yaml").write_text("group: europe\ntask: [west, east]\n")
    found = evaluate(tmp_path, model_folder, folder / "europe.yaml")
    assert found.scores == {"west/0": 1.0, "west/1": 0.0, "west/2": 1.0, "east/0": 1.0}
    assert (found.task, found.value, found.num_documents) == ("europe", 0.75, 4)
    write_task(folder, "east", test=["Greece"], metric_list=[EXACT_MATCH | {"aggregation": "median"}])
    with pytest.raises(InputError, match=r"'europe' is 2 tasks whose metrics have no common mean .*: west, east"):
        evaluate(tmp_path, model_folder, folder / "europe.yaml")


def test_a_finished_task_is_not_asked_again(tmp_path, model_folder, monkeypatch):
    path = write_task(tmp_path / "tasks")
    first = evaluate(tmp_path, model_folder, path)
    loaded = []
    load = language_model.load
    monkeypatch.setattr(language_model, "load", lambda *args, **kw: loaded.append(args) or load(*args, **kw))
    assert evaluate(tmp_path, model_folder, path, batch_size=1) == first
    assert not loaded
    assert evaluate(tmp_path, model_folder, path, num_fewshot=0).prompts_digest != first.prompts_digest
    assert len(loaded) == 1
    bigrams.save(model_folder, WORDS, knows("France"))
    assert evaluate(tmp_path, model_folder, path, num_fewshot=0).value == 0.25
    write_task(tmp_path / "tasks", test=["France"])
    assert evaluate(tmp_path, model_folder, path, num_fewshot=0).value == 1
    assert len(loaded) == 3


def test_only_what_is_missing_is_asked(tmp_path, model_folder, monkeypatch):
    folder = tmp_path / "tasks"
    write_task(folder, "west", test=["Italy"])
    write_task(folder, "east", test=["Greece"])
    asked = []
    evaluate_one = harness.evaluate
    monkeypatch.setattr(
        harness, "evaluate", lambda model, source, **kw: asked.append(source.name) or evaluate_one(model, source, **kw)
    )
    arguments = {"results": tmp_path / "results", "batch_size": 2}
    downstream.evaluate_tasks(model_folder, [str(folder / "west.yaml")], **arguments)
    both = downstream.evaluate_tasks(model_folder, [f"{folder}/"], **arguments)
    assert asked == ["west", "east"]
    assert {name: found.value for name, found in both.items()} == {"east": 1.0, "west": 0.0}


def squad_document(title, *answers):
    return {"id": title, "title": title, "context": "c", "question": "q", "answers": {"text": list(answers)}}


def test_squad_by_document(monkeypatch):
    """Case, articles and punctuation do not count; where there is no answer, none may be given."""
    documents = [
        squad_document("articles", "The Eiffel Tower", "Tower"),
        squad_document("wrong", "Rome"),
        squad_document("unanswerable"),
        squad_document("answered though unanswerable"),
        squad_document("punctuation only counts as no answer", "..."),
    ]
    answers = {"articles": " an eiffel tower.", "wrong": " Rome, Italy", "answered though unanswerable": " Rome"}
    table = datasets.Dataset.from_list(documents)
    monkeypatch.setattr(datasets, "load_dataset", lambda **_: datasets.DatasetDict(train=table, validation=table))
    titles = re.compile(r"Title: (.*)")
    listener = Listener(lambda prompt: answers.get(titles.findall(prompt)[-1], ""))
    found = harness.evaluate(listener, TaskSource("squadv2"), few_shot=FewShot())
    assert list(found.scores.values()) == [1, 0, 1, 0, 1]
    assert (found.metric, found.value, found.version) == ("exact", 0.6, "3")
    assert all(prompt.count("Title: ") == 2 and "  " not in prompt for prompt in listener.prompts)
    assert squad.SQuADv2.NAME in PAPER_TASKS


def small_index():
    """Only the folders of the paper's tasks: reading all 14,000 takes ten seconds."""
    tasks = Path(lm_eval.__file__).parent / "tasks"
    folders = ("triviaqa", "nq_open", "webqs", "squadv2", "lambada")
    return TaskManager(include_path=[tasks / folder for folder in folders], include_defaults=False)


def test_the_papers_tasks_are_lm_evals():
    assert set(PAPER_TASKS) <= set(small_index().all_subtasks)


def test_an_unknown_task(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(harness, "_index", small_index)
    with pytest.raises(InputError, match="has no task 'trivia_qa'; the nearest are 'triviaqa'"):
        evaluate(tmp_path, model_folder, "trivia_qa")
    with pytest.raises(InputError, match=r"has no task 'xyzzy'\. `lm-eval ls tasks` lists all of them"):
        evaluate(tmp_path, model_folder, "xyzzy")


def test_data_that_cannot_be_had(tmp_path, model_folder, monkeypatch):
    monkeypatch.setattr(harness, "_index", small_index)
    with pytest.raises(InputError, match=r"task 'triviaqa': its data cannot be had: .*trivia_qa.*HF_HUB_OFFLINE"):
        evaluate(tmp_path, model_folder, "triviaqa")
    path = write_task(tmp_path / "tasks")
    (tmp_path / "tasks" / "capitals-test.json").unlink()
    with pytest.raises(InputError, match=r"task 'capitals': its data cannot be had: .*capitals-test\.json"):
        evaluate(tmp_path, model_folder, path)


def test_data_that_come_as_a_program(tmp_path, model_folder, monkeypatch):
    def refuse(**_):
        raise RuntimeError("Dataset scripts are no longer supported, but found old.py")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(InputError, match=r"'capitals' cannot be asked: its data come as a program .*old\.py"):
        evaluate(tmp_path, model_folder, write_task(tmp_path / "tasks"))


def test_other_user_errors(tmp_path, model_folder, monkeypatch):
    path = write_task(tmp_path / "tasks")
    with pytest.raises(InputError, match="'capitals' has 4 examples to show, too few for 4 shots"):
        evaluate(tmp_path, model_folder, path, num_fewshot=4)
    with pytest.raises(InputError, match="'capitals' runs programs that the model writes"):
        evaluate(tmp_path, model_folder, write_task(tmp_path / "tasks", unsafe_code=True))
    with pytest.raises(MissingFileError, match=r"nowhere: no model there \(no config\.json\)"):
        evaluate(tmp_path, tmp_path / "nowhere", path)
    (model_folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match="model: no causal LM with its tokenizer that transformers can load"):
        evaluate(tmp_path, model_folder, path)

    def not_installed(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(downstream, "version", not_installed)
    with pytest.raises(
        InputError, match=re.escape("lm-eval, which is not installed: pip install 'doremi-mixture[eval]'")
    ):
        evaluate(tmp_path, model_folder, path)
