"""From the markers of all units to the domains of a store, and the checks that only the whole corpus allows."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from doremi.corpus.config import Split
from doremi.corpus.storing.manifest import ShardEntry
from doremi.errors import InputError

logger = logging.getLogger(__name__)

MAX_FILES_TOLD = 20

Domains = dict[str, dict[Split, list[ShardEntry]]]
Sets = dict[str, list[ShardEntry]]


class Contents(NamedTuple):
    """The shards of a store, each list in the order of the units."""

    domains: Domains
    sets: Sets  # text to evaluate on that belongs to no domain


def collect(markers: Sequence[Mapping[str, Any]], *, sets: Iterable[str] = ()) -> Contents:
    """What all units hold; warns of what was left out, and of domains without held-out documents: an experiment that
    uses one of them is refused, one that leaves them out is not.

    Raises:
        InputError: no document at all, a domain without training documents, a set of ``sets`` without any, or names
            that `check_names` refuses.
    """
    inputs = [item for marker in markers for item in marker["inputs"]]
    _report_skipped(inputs)
    domains: Domains = {}
    of_sets: Sets = {name: [] for name in sets}
    for shard in (shard for marker in markers for shard in marker["shards"]):
        name, split, entry = shard["domain"], shard["split"], ShardEntry(**shard["entry"])
        place = of_sets[name] if split == "set" else domains.setdefault(name, {}).setdefault(split, [])
        place.append(entry)
    if not domains:
        raise InputError(
            f"corpus: no document in {', '.join(item['name'] for item in inputs[:3])}; is it the right input?"
        )
    check_names(domains, sets=of_sets)
    for name, splits in sorted(domains.items()):
        _check_both_sides(name, splits)
    for name, shards in of_sets.items():
        check_not_empty(name, sum(shard.tokens - shard.documents for shard in shards))
    return Contents(domains, of_sets)


def check_not_empty(name: str, size: int) -> None:
    """Refuse an evaluation set without a document, or without a token but those that end documents.

    Raises:
        InputError: ``size``, the number of either, is 0.
    """
    if size <= 0:
        raise InputError(f"evaluation.sets: {name!r} has no text; is it the right input? Correct it or drop the set")


def check_names(names: Collection[str], *, sets: Collection[str] = ()) -> None:
    """Refuse names that differ only in case: on some file systems they would be one folder. Sets have names of their
    own.

    Raises:
        InputError: names both domains, or the set.
    """
    _check_case("domains", names, remedy="give them one spelling in the inputs")
    _check_case("evaluation.sets:", sets, remedy="give them one spelling")
    domains = {name.casefold(): name for name in names}
    for name in sets:
        if (domain := domains.get(name.casefold())) is not None:
            raise InputError(
                f"evaluation.sets: {name!r} is the name of a domain of the corpus too ({domain!r}); results could not "
                "tell them apart. Rename the set"
            )


def _check_case(what: str, names: Iterable[str], *, remedy: str) -> None:
    seen: dict[str, str] = {}
    for name in sorted(names):
        other = seen.setdefault(name.casefold(), name)
        if other != name:
            raise InputError(
                f"{what} {other!r} and {name!r} differ only in case and would share a folder on some systems; {remedy}"
            )


def _check_both_sides(name: str, splits: Mapping[Split, list[ShardEntry]]) -> None:
    num_documents = sum(shard.documents for shards in splits.values() for shard in shards)
    if "train" not in splits:
        raise InputError(
            f"domain {name!r} has no training document ({num_documents:,} held out); give training input for it, or "
            "take it out of the held-out inputs"
        )
    if "held_out" not in splits:
        logger.warning(
            "domain %r has no held-out document (%s for training), so it cannot be evaluated; leave it out of "
            "weights.reference, or prepare again with more held out",
            name,
            f"{num_documents:,}",
        )


def in_words(skipped: Mapping[str, int]) -> str:
    """How many records were left out for each reason, the most frequent one first."""
    return ", ".join(f"{count:,} x {reason}" for reason, count in Counter(skipped).most_common())


def _report_skipped(inputs: Sequence[Mapping[str, Any]]) -> None:
    """A line for each file, but not thousands of them."""
    lossy = [item for item in inputs if item["skipped"]]
    for item in lossy[:MAX_FILES_TOLD]:
        logger.warning("%s: left out %s", item["name"], in_words(item["skipped"]))
    if len(lossy) > MAX_FILES_TOLD:
        rest: Counter[str] = Counter()
        for item in lossy[MAX_FILES_TOLD:]:
            rest.update(item["skipped"])
        num_files = len(lossy) - MAX_FILES_TOLD
        logger.warning(
            "%s more input files: left out %s; manifest.json has the counts of each", f"{num_files:,}", in_words(rest)
        )
