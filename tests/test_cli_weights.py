"""`doremi weights`: what it prints."""

from __future__ import annotations

import math

import pytest

from doremi import DomainWeights
from doremi.cli.main import main
from doremi.cli.weights import kl_divergence


@pytest.fixture
def files(tmp_path):
    first, second = tmp_path / "first.json", tmp_path / "second.json"
    DomainWeights({"web": 0.5, "code": 0.3, "books": 0.2}).to_json(first)
    DomainWeights({"web": 0.7, "code": 0.3}).to_json(second)
    return str(first), str(second)


def test_compare(capsys, files):
    assert main(["weights", "compare", *files]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[:4] for line in lines[1:4]) == [
        ["books", "0.2000", "0.0000", "-0.2000"],
        ["code", "0.3000", "0.3000", "+0.0000"],
        ["web", "0.5000", "0.7000", "+0.2000"],
    ]
    assert lines[3].startswith("code")
    assert lines[-1] == "total variation 0.2000, largest change 0.2000, KL(B ‖ A) 0.2355 nats"  # 0.7 ln(0.7 / 0.5)


def test_divergence_by_hand():
    assert kl_divergence({"a": 0.5, "b": 0.5}, {"a": 0.25, "b": 0.75}) == pytest.approx(math.log(4 / 3) / 2)
    assert kl_divergence({"a": 1.0}, {"b": 1.0}) == math.inf
    assert kl_divergence({"a": 1.0, "b": 0.0}, {"a": 1.0}) == 0


def test_compare_equal_weights_in_another_order(capsys, tmp_path):
    DomainWeights({"b": 1, "a": 3}).to_json(tmp_path / "one.json")
    (tmp_path / "two.json").write_text('{"a": 0.75, "b": 0.25}')
    assert main(["weights", "compare", str(tmp_path / "one.json"), str(tmp_path / "two.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:3] == ["b         0.2500    0.2500   +0.0000", "a         0.7500    0.7500   +0.0000"]
    assert lines[3] == "total variation 0.0000, largest change 0.0000, KL(B ‖ A) 0.0000 nats"


def test_compare_draws_the_largest_changes_first(capsys, tmp_path):
    DomainWeights({"web": 0.5, "code": 0.3, "books": 0.2}).to_json(tmp_path / "a.json")
    DomainWeights({"web": 0.55, "code": 0.35, "books": 0.1}).to_json(tmp_path / "b.json")
    assert main(["weights", "compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]) == 0
    bars = [(line.split()[0], line.split()[-1]) for line in capsys.readouterr().out.splitlines()[1:4]]
    assert bars[0] == ("books", "-" * 40)
    assert sorted(bars[1:]) == [("code", "+" * 20), ("web", "+" * 20)]


HOSTILE = "evil\x1b[31m\n\u202e<script>"


def test_hostile_names_are_shown_and_never_obeyed(capsys, tmp_path):
    path = str(tmp_path / "w.json")
    alarm = {"name": "drift\x1b", "finding": "on\x07", "remedy": "none"}
    provenance = {"by_seed": {"0": {}, "1": {}}, "spread": {HOSTILE: 0.1}, "alarms": [alarm]}
    DomainWeights({HOSTILE: 1, "Gutenberg (PG-19)": 1}).to_json(path, provenance=provenance)
    assert main(["weights", "show", path]) == 0
    assert main(["weights", "compare", path, path]) == 0
    printed = capsys.readouterr().out
    assert printed.count("evil\\x1b[31m\\n\\u202e<script>") == 3
    assert "drift\\x1b: on\\x07. What to do: none" in printed
    assert not set(printed) & set("\x1b\x07\u202e")


def test_show_tells_how_a_file_of_ours_came_about(capsys, tmp_path):
    provenance = {
        "rounds": {"status": "oscillating", "changes": [0.1, 0.09999], "weights": []},
        "by_seed": {"0": {"web": 0.6, "code": 0.4}, "1": {"web": 0.8, "code": 0.2}},
        "spread": {"code": 0.1414, "web": 0.1},
        "alarms": [{"name": "collapse", "finding": "on web", "remedy": "train longer"}],
    }
    DomainWeights({"web": 0.7, "code": 0.3}).to_json(tmp_path / "w.json", provenance=provenance)
    assert main(["weights", "show", str(tmp_path / "w.json")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"web     0.7000 ± 0.1000  {'#' * 40}",
        f"code    0.3000 ± 0.1414  {'#' * 17}",
        "rounds: oscillating; largest change of each 0.1000, 0.1000",
        "± standard deviation over 2 proxies, at most 0.1414: code",
        "collapse: on web. What to do: train longer",
    ]


@pytest.mark.parametrize("content", ['{"web": 3, "code": 1}', '{"web": 3, "code": 1, "provenance": 0}'])
def test_show_a_plain_file(capsys, tmp_path, content):
    (tmp_path / "w.json").write_text(content)
    assert main(["weights", "show", str(tmp_path / "w.json")]) == 0
    assert capsys.readouterr().out.splitlines()[0].split()[:2] == ["web", "0.7500"]


@pytest.mark.parametrize("provenance", ['"text"', '{"rounds": 3}', '{"alarms": [{"name": 1}]}', '{"spread": [1]}'])
def test_provenance_of_another_form_is_refused(capsys, tmp_path, provenance):
    (tmp_path / "w.json").write_text(f'{{"train_domain_weights": {{"a": 1}}, "provenance": {provenance}}}')
    assert main(["weights", "show", str(tmp_path / "w.json")]) == 2
    error = capsys.readouterr().err
    assert "w.json: provenance" in error
    assert "remove `provenance` to use it" in error


# ---- baseline ----


class Store:
    """Sizes by hand."""

    path, digest, tokenizer_digest = "store", "corpus digest", "tokenizer digest"
    names = ("Books3", "web")
    tokens = {"Books3": 100, "web": 300}  # noqa: RUF012

    @classmethod
    def open(cls, path, *, packing="pack"):
        return cls()

    def with_packing(self, packing):
        return self

    def num_tokens(self, name):
        return self.tokens[name]

    def num_sequences(self, name, length):
        return self.tokens[name] // length


@pytest.fixture
def baseline(capsys, monkeypatch, tmp_path):
    """``baseline(rule, *flags)``: what the written file holds."""
    from doremi import corpus

    monkeypatch.setattr(corpus, "TokenStore", Store)

    def run(*arguments):
        out = tmp_path / "out.json"
        assert main(["weights", "baseline", *arguments, "--corpus", "store", "--out", str(out)]) == 0
        assert "web" in capsys.readouterr().out
        return dict(DomainWeights.from_json(out))

    return run


@pytest.mark.parametrize(
    ("arguments", "books"),
    [
        (["natural"], 0.25),
        (["natural(packed)", "--sequence-length", "60"], 1 / 6),  # one sequence and five
        (["natural", "--epochs", "pile-epochs"], 1 / 3),  # 1.5 of 100 and, not the Pile's, 1 of 300
        (["temperature(0.5)"], 0.1),  # squares: 1 and 9
        (["unimax", "--tokens", "1e3"], 0.4),  # 4 epochs of 100
        (["unimax", "--tokens", "1000", "--max-epochs", "2"], 0.25),  # 200 of 800
        (["unimax(1.5)", "--tokens", "400"], 0.375),  # 150, the rest to web
    ],
)
def test_baselines(baseline, arguments, books):
    assert baseline(*arguments) == pytest.approx({"Books3": books, "web": 1 - books}, abs=1e-15)


def test_epochs_of_a_file_and_what_the_written_file_says_of_itself(baseline, capsys, tmp_path):
    (tmp_path / "epochs.json").write_text('{"Books3": 3}')
    assert baseline("natural", "--epochs", str(tmp_path / "epochs.json"))["web"] == 0.5
    assert main(["weights", "show", str(tmp_path / "out.json")]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "rule: natural, for the corpus of digest corpus digest"
    (tmp_path / "epochs.json").write_text('{"wiki": 3}')
    assert main(["weights", "baseline", "natural", "--epochs", str(tmp_path / "epochs.json"), "--corpus", "s"]) == 2
    assert "epochs of 'wiki': no such domain; there are 'Books3', 'web'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "message"),
    [
        ("--tokens", "nan", "'nan' is not a whole number of at least 1"),
        ("--tokens", "inf", "'inf' is not a whole number"),
        ("--tokens", "many", "'many' is not a number"),
        ("--sequence-length", "0", "'0' is not a whole number of at least 1"),
        ("--sequence-length", "1.5", "'1.5' is not a whole number"),
    ],
)
def test_numbers_that_are_none(capsys, flag, value, message):
    with pytest.raises(SystemExit) as stopped:
        main(["weights", "baseline", "natural", "--corpus", "store", flag, value])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_show_published_weights_with_their_origin(capsys):
    assert main(["weights", "show", "paper-280m"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["Pile-CC", "0.6056"]
    assert lines[-1] == "source: arXiv 2305.10429, Table 1"
    assert main(["weights", "show"]) == 0
    assert "redpajama-baseline           7 domains" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "paper-280M"], "'paper-280M' is neither a file nor published weights; there are pile-baseline-256k"),
        (["show", "missing.json"], "missing.json"),
        (["baseline", "unimax", "--corpus", "nowhere"], "give --tokens"),
        (["baseline", "uniform", "--corpus", "nowhere"], "nowhere"),
    ],
)
def test_refused(capsys, arguments, message):
    assert main(["weights", *arguments]) == 2
    assert message in capsys.readouterr().err
