"""A whole plan: memory of what is trained, and the table."""

from __future__ import annotations

import pytest

from doremi.planning import make as make_plan
from doremi.planning import show
from tests.planning.recipes import make


def plan(tmp_path, **sections):
    (tmp_path / "x.jsonl").write_text('{"text": "some", "domain": "a"}\n')
    recipe = make(
        corpus={"inputs": [{"path": str(tmp_path / "x.jsonl")}], "tokenizer": {"vocab_size": 300}}, **sections
    )
    return recipe, make_plan(recipe, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "share"),
    [
        ({}, 1),
        ({"reference_dtype": "bfloat16"}, 1 / 2),
        ({"objective": "hardest"}, 0),  # looks at no reference
    ],
)
def test_a_proxy_keeps_its_reference_beside_it(tmp_path, options, share):
    _, found = plan(tmp_path, doremi=options)
    beside = found.memories["proxy"].parameters - found.memories["reference"].parameters
    assert beside == 4 * share * found.sizes["reference"].num_parameters


def test_only_what_is_trained_needs_memory(tmp_path):
    _, found = plan(tmp_path, methods=["natural", "uniform"], verify={"size": "proxy"})
    assert set(found.memories) == {"proxy"}
    assert not found.doubts


def test_search_and_verification_have_a_subtotal_each(tmp_path):
    recipe, found = plan(tmp_path, doremi={"rounds": "auto"}, verify={"size": "reference", "seeds": 2})
    lines = show(found, recipe).splitlines()
    assert lines[1].split() == "models parameters tokens each FLOPs of a reference run".split()  # noqa: SIM905
    rows = {line[:34].strip(): line[34:].split() for line in lines[2:8]}
    assert [*rows] == ["train reference (and natural)", "train proxy", "search", "train natural", "train doremi",
                       "verification"]  # fmt: skip
    shares = {name: float(row[-1]) for name, row in rows.items()}
    assert shares["train reference (and natural)"] == 5
    assert shares["search"] == pytest.approx(5 + shares["train proxy"], abs=0.001)
    assert (shares["train natural"], shares["train doremi"], shares["verification"]) == (1, 2, 3)
    assert "planned for all models that there may be" in "\n".join(lines)
    assert found.total_flops == found.search_flops + found.verification_flops
