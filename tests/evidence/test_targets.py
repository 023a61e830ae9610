"""Targets worked out by hand, and their intervals against those of numbers put together by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from doremi.errors import InputError
from doremi.evidence import targets
from doremi.evidence.comparison import summarise
from doremi.evidence.paired_documents import DocumentLosses, compare_documents, over_documents
from doremi.evidence.targets import SetSizes, Targets
from doremi.evidence.verdict import compare_seeds, summaries_by_seed

PRIOR = {"web": 0.75, "code": 0.25}
NATS = {"web": 3.0, "code": 1.0, "client": 6.0, "bench": 2.0}  # an entry of a set is no domain's
BEFORE = {0: {"web": 3.0, "code": 2.0, "client": 5.0}, 1: {"web": 3.1, "code": 2.2, "client": 5.1}}
BEFORE |= {2: {"web": 3.2, "code": 2.1, "client": 5.3}}
GAINS = {0: 0.10, 1: 0.12, 2: 0.11}  # on the client's text alone; the domains lose
SIZES = SetSizes({"web": 4.0, "code": 2.0, "client": 5.0, "bench": 1.0}, ("client", "bench"))


def parsed(spec):
    return targets.parse(spec, prior=PRIOR, sizes=SIZES)


class TestValues:
    @pytest.mark.parametrize(
        ("spec", "expected", "unit"),
        [
            ("uniform", 2.0, "nats per token"),
            ("reference", 0.75 * 3 + 0.25 * 1, "nats per token"),
            ("worst", 3.0, "nats per token"),  # over domains: the client's 6 do not count
            ({"client": 7}, 6.0, "nats per token"),  # one text: nothing to make comparable
            ({"web": 1, "code": 3}, 1.5, "nats per token"),  # the domains' own unit, as for the three others
            ({"client": 3, "bench": 1}, (3 * 6 / 5 + 2 / 1) / 4 / math.log(2), "bits per byte"),
            ({"web": 1, "client": 1}, (3 / 4 + 6 / 5) / 2 / math.log(2), "bits per byte"),
        ],
    )
    def test_by_hand(self, spec, expected, unit):
        target = parsed(spec)
        assert target.value(NATS) == pytest.approx(expected, rel=1e-15)
        assert target.unit == unit

    @pytest.mark.parametrize("spec", ["uniform", "reference", {"client": 3, "bench": 1}, {"web": 2, "code": 1}])
    def test_what_methods_solve_for_has_the_same_value(self, spec):
        target = parsed(spec)
        assert sum(c * NATS[name] for name, c in target.on_nats().items()) == pytest.approx(target.value(NATS))
        assert parsed("worst").on_nats() == "worst"

    def test_the_order_of_a_mapping_changes_no_bit(self):
        rng = np.random.default_rng(0)
        nats = dict(zip("abcdefgh", rng.uniform(1, 9, 8).tolist(), strict=True))
        weights = dict(zip(nats, rng.uniform(size=8).tolist(), strict=True))
        sizes = SetSizes(dict.fromkeys(nats, 4.0))
        there, back = (
            targets.parse(spec, prior=weights, sizes=sizes) for spec in (weights, dict(reversed(weights.items())))
        )
        assert there.value(nats) == back.value(nats)

    def test_the_three_are_those_of_the_summaries(self):
        found = summarise({name: NATS[name] for name in PRIOR}, PRIOR)
        assert Targets(PRIOR, sets=SIZES.sets).values(NATS) == {
            "uniform_mean": found.uniform_mean,
            "reference_mean": found.reference_mean,
            "worst": found.worst,
        }
        assert parsed("worst").worst_set(NATS) == found.worst_domain == "web"

    def test_a_chosen_one_stands_beside_the_three(self):
        chosen = Targets(PRIOR, parsed({"client": 1}), SIZES.sets)
        assert chosen.primary == "target"
        assert chosen.values(NATS) == Targets(PRIOR).values(NATS) | {"target": 6.0}
        assert list(Targets(PRIOR, parsed("worst")).by_key()) == ["uniform_mean", "reference_mean", "worst"]
        assert Targets(PRIOR, parsed("worst")).primary == "worst"

    def test_over_some_domains(self):
        found = Targets(PRIOR, parsed("reference"), SIZES.sets).over(["code"])
        assert found.values(NATS) == {"uniform_mean": 1.0, "reference_mean": 1.0, "worst": 1.0}
        assert found.primary == "reference_mean"
        assert Targets(PRIOR, parsed({"client": 1})).over(["code"]).values(NATS)["target"] == 6.0

    def test_a_loss_that_is_missing(self):
        with pytest.raises(InputError, match="target: no loss of 'client'"):
            parsed({"client": 1}).value({"web": 1.0})

    def test_in_words(self):
        assert str(parsed("uniform")) == "uniform mean (nats per token)"
        assert str(parsed({"client": 3, "bench": 1})) == "0.75 x client + 0.25 x bench (bits per byte)"


class TestRefused:
    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            ("unifrom", r"'unifrom' is none of uniform, reference, worst, .*Did you mean 'uniform' for 'unifrom'\?"),
            ("client", r"for one set, write \{client: 1\}"),
            ({}, "no set in it"),
            ({"clint": 1}, r"no such set: 'clint'; there are 'web', .*Did you mean 'client' for 'clint'\?"),
            ({"client": 0}, "the weight of 'client' is 0; give a number above 0"),
            ({"client": -1.5}, r"the weight of 'client' is -1\.5"),
            ({"client": math.inf}, "the weight of 'client' is inf"),
            ({"client": math.nan}, "the weight of 'client' is nan"),
            ({"client": True}, "the weight of 'client' is True"),
            ({"client": "1"}, "the weight of 'client' is '1'"),
        ],
    )
    def test_one_line_each(self, spec, message):
        with pytest.raises(InputError, match=f"target: .*{message}") as caught:
            parsed(spec)
        assert "\n" not in str(caught.value)

    def test_bytes_that_are_not_known(self):
        sizes = SetSizes({"web": 4.0, "client": math.nan}, ("client",))
        with pytest.raises(InputError, match="target: how many bytes 'client' has is not known"):
            targets.parse({"web": 1, "client": 1}, prior={"web": 1.0}, sizes=sizes)
        assert targets.parse({"client": 1}, prior={"web": 1.0}, sizes=sizes).value(NATS) == 6.0


class TestOverSeeds:
    def compared(self, spec):
        after = {
            seed: {"web": nats["web"] + 0.2, "code": nats["code"] + 0.1, "client": nats["client"] - GAINS[seed]}
            for seed, nats in BEFORE.items()
        }
        sizes = SetSizes({"web": 4.0, "code": 2.0, "client": 5.0}, ("client",))
        chosen = targets.parse(spec, prior=PRIOR, sizes=sizes)
        return compare_seeds(
            {"main": after, "baseline": BEFORE},
            tuned="main",
            baseline="baseline",
            targets=Targets(PRIOR, chosen, sizes.sets),
        )

    def test_the_verdict_rests_on_the_chosen_target(self):
        found = self.compared({"client": 1})
        assert found.verdict.primary == "target"
        assert found.verdict.outcome == "better"
        assert found.summaries["target"].value == pytest.approx(-0.11)
        assert found.verdict.sentence.startswith(
            "Better: main minus baseline is -0.11 nats per token in the target (95 % interval"
        )
        assert found.summaries["uniform_mean"].value == pytest.approx(0.15)

    def test_units_stand_where_they_differ(self):
        found = self.compared({"client": 1, "web": 1})
        expected = (-0.11 / 5 + 0.2 / 4) / 2 / math.log(2)
        assert found.summaries["target"].value == pytest.approx(expected)
        assert f"main minus baseline is {expected:+.3g} bits per byte in the target" in found.verdict.sentence

    def test_sets_stand_beside_the_domains_and_are_not_counted_among_them(self):
        found = self.compared("uniform")
        assert list(found.domains) == ["web", "code"]
        assert list(found.sets) == ["client"]
        assert found.sets["client"].outcome == "better"
        assert found.sets["client"].holm_p_value == found.sets["client"].p_value  # a family of its own
        assert found.tally.num_domains == 2
        assert found.verdict.primary == "uniform_mean"

    def test_a_single_seed(self):
        sizes = SetSizes({"web": 4.0, "code": 2.0, "client": 5.0}, ("client",))
        chosen = targets.parse({"client": 1, "web": 1}, prior=PRIOR, sizes=sizes)
        runs = {"main": {0: BEFORE[1]}, "baseline": {0: BEFORE[0]}}
        found = compare_seeds(runs, tuned="main", baseline="baseline", targets=Targets(PRIOR, chosen, sizes.sets))
        assert "bits per byte in the target, +0.15 nats per token in the uniform mean" in found.verdict.sentence

    def test_a_domain_without_a_weight_is_no_set(self):
        runs = {"main": BEFORE, "baseline": BEFORE}
        with pytest.raises(InputError, match="no reference weight for 'client'"):
            compare_seeds(runs, tuned="main", baseline="baseline", targets=Targets(PRIOR))

    def test_by_seed(self):
        found = summaries_by_seed(BEFORE, Targets(PRIOR, parsed({"client": 1}), ("client",)))
        assert found["target"] == {0: 5.0, 1: 5.1, 2: 5.3}
        assert list(found) == ["uniform_mean", "reference_mean", "worst", "target"]


class TestOverDocuments:
    def losses(self, seed):
        rng = np.random.default_rng(seed)
        sizes = np.random.default_rng(9).integers(5, 50, size=(3, 60))
        return {
            name: DocumentLosses((rng.normal(3, 0.3, 60)) * of_name, of_name)
            for name, of_name in zip(("web", "code", "client"), sizes, strict=True)
        }

    def compared(self, spec):
        sizes = SetSizes({"web": 4.0, "code": 2.0, "client": 5.0}, ("client",))
        chosen = targets.parse(spec, prior=PRIOR, sizes=sizes)
        return compare_documents(self.losses(0), baseline=self.losses(1), targets=Targets(PRIOR, chosen, sizes.sets))

    def test_one_set_is_its_own_interval(self):
        found = self.compared({"client": 1})
        expected = over_documents(self.losses(0)["client"], baseline=self.losses(1)["client"])
        assert found.summaries["target"].value == pytest.approx(expected.value)
        assert found.summaries["target"].p_value == pytest.approx(expected.p_value)
        assert (found.sets["client"].low, found.sets["client"].high) == (expected.low, expected.high)
        assert list(found.domains) == ["web", "code"]
        assert found.tally.num_domains == 2

    def test_bits_per_byte_scale_each_set_and_its_error(self):
        found = self.compared({"client": 1, "web": 3}).summaries["target"]
        parts = {
            name: over_documents(self.losses(0)[name], baseline=self.losses(1)[name]) for name in PRIOR | {"client": 1}
        }
        factors = {"client": 0.25 / 5 / math.log(2), "web": 0.75 / 4 / math.log(2)}
        assert found.value == pytest.approx(sum(factor * parts[name].value for name, factor in factors.items()))
        # half-widths add up in squares, but for the degrees of freedom, which are many here
        half = math.hypot(*(factor * (parts[n].high - parts[n].low) / 2 for n, factor in factors.items()))
        assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.02)

    def test_sets_leave_the_three_alone(self):
        with_sets, without = (
            self.compared({"client": 1}),
            compare_documents(
                {name: self.losses(0)[name] for name in PRIOR},
                baseline={name: self.losses(1)[name] for name in PRIOR},
                targets=Targets(PRIOR),
            ),
        )
        for key, judged in without.summaries.items():
            assert with_sets.summaries[key] == judged
        assert with_sets.domains == without.domains
