"""The demo corpus: real text that every installation already has, collected when it is asked for.

A recipe reads it like any other reader: ``reader: doremi.corpus.demo.sample:documents``. No third-party text is
committed, and nothing is downloaded. ``python -m doremi.corpus.demo.sample`` shows what this installation gives.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator, Sequence

from doremi.corpus.demo.sample_domains import DEMO_EXTRA, DOMAINS, Domain
from doremi.errors import InputError
from doremi.files import digest_bytes

MIN_CHARACTERS = 200  # of a document: less teaches little and costs an EOS
MAX_DOCUMENT_BYTES = 5_000
MIN_DOMAIN_BYTES = 100_000
MIN_DOMAIN_DOCUMENTS = 100  # one in twenty is held out, by content hash: of 40, one time in eight none would be
MIN_DOMAINS = 8


def documents() -> Iterator[tuple[str, str]]:
    """Yield (domain, text) for every document of the demo corpus, domain by domain.

    The order and the texts depend only on the versions of Python and of the distributions that
    `doremi.corpus.demo.sample_domains` names. Documents have at least 200 characters and at most 5 kB of UTF-8; longer
    texts are split at line ends; no document occurs twice. A domain of which this installation has too little is
    left out with a `UserWarning`.

    Raises:
        InputError: fewer than 8 domains are left.
    """
    seen: set[str] = set()
    streams = {domain: _domain_documents(domain, seen) for domain in DOMAINS}
    # The beginning of every domain first, so that what is missing is said before minutes go into what is there.
    heads = {domain: _take_minimum(stream) for domain, stream in streams.items()}
    for domain in _usable(heads):
        for text in itertools.chain(heads[domain], streams[domain]):
            yield domain.name, text


def _domain_documents(domain: Domain, seen: set[str]) -> Iterator[str]:
    """The documents of one domain up to its cap, without those ``seen`` in any domain; adds their digests to it."""
    num_bytes = 0
    for text in itertools.chain.from_iterable(map(split, domain.texts())):
        encoded = text.encode()
        digest = digest_bytes(encoded)
        if digest in seen:
            continue
        num_bytes += len(encoded)
        if num_bytes > domain.max_bytes:
            return
        seen.add(digest)
        yield text


def split(text: str) -> Iterator[str]:
    """Cut ``text`` at line ends into documents of at most 5 kB of UTF-8, and drop what has under 200 characters.

    A single line that is longer than a document is data rather than text, and is dropped too.
    """
    lines: list[str] = []
    num_bytes = 0
    for line in text.splitlines(keepends=True):
        line_bytes = len(line.encode())
        if num_bytes + line_bytes > MAX_DOCUMENT_BYTES:
            yield from _joined(lines)
            lines, num_bytes = [], 0
        if line_bytes <= MAX_DOCUMENT_BYTES:
            lines.append(line)
            num_bytes += line_bytes
    yield from _joined(lines)


def _joined(lines: Sequence[str]) -> Iterator[str]:
    document = "".join(lines).strip("\n")  # not the indentation that a piece of code begins with
    if len(document) >= MIN_CHARACTERS:
        yield document


def _take_minimum(stream: Iterator[str]) -> list[str]:
    """As many documents as a domain needs at least, or all there are."""
    taken: list[str] = []
    num_bytes = 0
    for text in stream:
        taken.append(text)
        num_bytes += len(text.encode())
        if num_bytes >= MIN_DOMAIN_BYTES and len(taken) >= MIN_DOMAIN_DOCUMENTS:
            break
    return taken


def _usable(heads: dict[Domain, list[str]]) -> list[Domain]:
    """The domains that are large enough, after a warning for each of the others."""
    usable = []
    for domain, texts in heads.items():
        num_bytes = sum(len(text.encode()) for text in texts)
        if num_bytes >= MIN_DOMAIN_BYTES and len(texts) >= MIN_DOMAIN_DOCUMENTS:
            usable.append(domain)
            continue
        warnings.warn(
            f"demo corpus: domain {domain.name!r} is left out: this installation has {len(texts)} documents, "
            f"{num_bytes / 1e3:.0f} kB of it, at least {MIN_DOMAIN_DOCUMENTS} and {MIN_DOMAIN_BYTES / 1e3:.0f} kB are "
            f"needed; to have it, {domain.remedy}",
            stacklevel=3,
        )
    if len(usable) < MIN_DOMAINS:
        missing = ", ".join(repr(domain.name) for domain in heads if domain not in usable)
        raise InputError(
            f"demo corpus: this installation has text for {len(usable)} domains, at least {MIN_DOMAINS} are needed; "
            f"missing: {missing}; run: {DEMO_EXTRA}"
        )
    return usable


def describe() -> str:
    """A table of the demo corpus: documents and megabytes (1e6 bytes of UTF-8) of each domain."""
    sizes: dict[str, list[int]] = {}
    for domain, text in documents():
        sizes.setdefault(domain, []).append(len(text.encode()))
    rows = [f"{name:<20}{len(size):>10,}{sum(size) / 1e6:>8.2f}" for name, size in sizes.items()]
    everything = list(itertools.chain.from_iterable(sizes.values()))
    total = f"{'total':<20}{len(everything):>10,}{sum(everything) / 1e6:>8.2f}"
    return "\n".join([f"{'domain':<20}{'documents':>10}{'MB':>8}", *rows, total])


if __name__ == "__main__":
    print(describe())
