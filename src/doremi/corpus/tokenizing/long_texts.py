"""Long texts in pieces whose token ids are, end to end, those of the whole.

`tokenizers` needs a hundred bytes of memory for each byte of a text. A tokenizer that divides text into words before it
looks for tokens (a pre-tokenizer) never lets a token cross a word's end, and a normalizer changes nothing far away from
where it stands. So a text can be cut between two words, if cutting there is seen to change nothing:

1. the tokenizer itself sees the end of a word there, with `CONTEXT` characters of text on both sides;
2. the ids of both sides apart are those of both together, with three lengths of context, which differ by 1 and 3: a
   boundary that depends on where the context begins (digits in threes, words of fixed length) is not taken for one.

A tokenizer without a pre-tokenizer (SentencePiece's, as a rule) sees one word in any text, which is never cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import tokenizers

from doremi.corpus.tokenizing.backends import Ids, TextEncoder
from doremi.errors import InputError

PIECE_CHARACTERS = 1 << 18  # of a text that is cut
GROUP_CHARACTERS = 1 << 21  # encoded at a time
MAX_WORD_CHARACTERS = 1 << 22  # of text that cannot be cut: half a gigabyte in `tokenizers`
CONTEXT = 512
_CONTEXTS = ((CONTEXT, CONTEXT), (CONTEXT - 1, CONTEXT - 3), (CONTEXT - 3, CONTEXT // 2 + 1))
_MAX_TRIALS = 8  # of word ends around one position
_STRIDE = 4096  # to the next position, where none of them will do
_LOOK_BACK = 4096


class IndivisibleTextError(InputError):
    """A text beyond `MAX_WORD_CHARACTERS` in which this tokenizer sees one single word."""


class Divider:
    """Finds out where the texts of one tokenizer can be cut."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        # Words of a fixed length end where the beginning of the whole text decides, which no context shows.
        self._has_words = backend.pre_tokenizer is not None and "FixedLength" not in str(backend.pre_tokenizer)

    def pieces(self, text: str) -> Iterator[str]:
        """``text`` in pieces of about `PIECE_CHARACTERS`, longer where it cannot be cut.

        Raises:
            IndivisibleTextError: a piece would be longer than `MAX_WORD_CHARACTERS`.
        """
        start = 0
        while len(text) - start > 2 * PIECE_CHARACTERS:
            cut = self._next_cut(text, start)
            if cut is None:
                break
            yield text[start:cut]
            start = cut
        yield text[start:]

    def _next_cut(self, text: str, start: int) -> int | None:
        """The first cut a piece's length after ``start``; None where the rest is to stay whole."""
        stop = min(start + MAX_WORD_CHARACTERS, len(text)) - CONTEXT
        for position in range(start + PIECE_CHARACTERS, stop if self._has_words else 0, _STRIDE):
            for cut in self._word_ends(text, position):
                if self._is_cut(text, cut):
                    return cut
        if len(text) - start > MAX_WORD_CHARACTERS:
            raise IndivisibleTextError(
                f"this tokenizer sees one word in {len(text) - start:,} characters of text, and at most "
                f"{MAX_WORD_CHARACTERS:,} are encoded as one; divide the text, or take a tokenizer that splits text "
                "into words"
            )
        return None

    def _word_ends(self, text: str, position: int) -> list[int]:
        """Ends of words in the middle of the context of ``position``, those before white space first."""
        encoding = self._encode(text[position - CONTEXT : position + CONTEXT])
        words, ends = encoding.word_ids, [end for _, end in encoding.offsets]
        inner = range(CONTEXT // 2, CONTEXT + CONTEXT // 2)
        last = range(len(words) - 1)
        found = {ends[index] for index in last if words[index] != words[index + 1] and ends[index] in inner}
        places = [position - CONTEXT + end for end in found]
        return sorted(places, key=lambda place: (not text[place].isspace(), abs(place - position)))[:_MAX_TRIALS]

    def _is_cut(self, text: str, place: int) -> bool:
        for before, after in _CONTEXTS:
            whole = self._encode(text[place - before : place + after])
            left, right = self._encode(text[place - before : place]).ids, self._encode(text[place : place + after]).ids
            if whole.ids != left + right or not left or not right:
                return False
            if whole.word_ids[len(left) - 1] == whole.word_ids[len(left)]:
                return False
        return True

    def _encode(self, text: str) -> tokenizers.Encoding:
        return self._backend.encode(text, add_special_tokens=False)


def encode_in_pieces(texts: Sequence[str], divider: Divider, encode: TextEncoder) -> Ids:
    """The ids of each text; memory beyond theirs is that of `GROUP_CHARACTERS` of text, or of the longest word.

    Raises:
        IndivisibleTextError: as `Divider.pieces`.
    """
    flat, lengths = [np.empty(0, np.uint32)], np.zeros(len(texts), np.int64)
    for numbers, group in _groups(texts, divider):
        ids = encode(group)
        flat.append(ids.flat)
        np.add.at(lengths, numbers, ids.lengths)
    return Ids(np.concatenate(flat), lengths)


def _groups(texts: Sequence[str], divider: Divider) -> Iterator[tuple[list[int], list[str]]]:
    """Pieces to be encoded together, each with the number of its text."""
    numbers: list[int] = []
    group: list[str] = []
    num_characters = 0
    for number, text in enumerate(texts):
        for piece in divider.pieces(text):
            if group and num_characters + len(piece) > GROUP_CHARACTERS:
                yield numbers, group
                numbers, group, num_characters = [], [], 0
            numbers.append(number)
            group.append(piece)
            num_characters += len(piece)
    yield numbers, group


def cut_at_spaces(text: str, max_characters: int) -> Iterator[str]:
    """``text`` in pieces of at most ``max_characters``, each but the first beginning with a space or line end.

    Where there is none for thousands of characters it is cut anywhere: good enough for a sample of text.
    """
    start = 0
    while len(text) - start > max_characters:
        stop = start + max_characters
        ends = range(stop, max(stop - _LOOK_BACK, start + 1), -1)
        cut = next((end for end in ends if text[end] in " \n" and not text[end - 1].isspace()), stop)
        yield text[start:cut]
        start = cut
    yield text[start:]
