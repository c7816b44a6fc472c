"""Scanning blocks of text in columns: tokens, decimal and hexadecimal fields of every row at once.

Eight characters are one little-endian 64-bit word whose lowest byte is the leftmost character; digits are
checked and converted a whole word at a time. A block is padded with ``PAD`` zero bytes on both sides so that
loading whole words never leaves it.
"""

import io
from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

PAD = 256
NEWLINE, CARRIAGE_RETURN, SPACE, TAB, COMMA = b"\n\r \t,"

Positions = NDArray[np.int64]
Mask = NDArray[np.bool_]
Words = NDArray[np.uint64]


def _every_byte(value: int) -> np.uint64:
    return np.uint64(int.from_bytes(bytes([value]) * 8, "little"))


ONES, HIGH_BITS, ZERO_CHARS = _every_byte(0x01), _every_byte(0x80), _every_byte(ord("0"))
EVEN_NIBBLES = np.uint64(0x000F000F000F000F)
FIRST = np.array([(1 << 8 * n) - 1 for n in range(9)], np.uint64)
"""``FIRST[n]`` selects the leftmost n characters of a word."""
LAST = ~FIRST[::-1]
"""``LAST[n]`` selects the rightmost n characters of a word."""
POWERS_OF_TEN = 10 ** np.arange(8, dtype=np.uint64)
EXACT_FLOAT = np.uint64(2**53)
MAX_NUMBER_CHARS = 64


@dataclass(frozen=True)
class Text:
    """A padded block of lines, each ended by a newline.

    Attributes:
        chars: uint8 ``[C]``, the block with its padding.
        words: uint64 ``[C - 7]``, the eight characters that start at each position (a view).
        pairs: uint16 ``[C - 1]``, the two characters that start at each position (a view).
    """

    chars: NDArray[np.uint8]
    words: Words
    pairs: NDArray[np.uint16]

    @classmethod
    def of(cls, padded: bytes) -> "Text":
        """View padded bytes."""
        size = len(padded)
        return cls(
            chars=np.frombuffer(padded, np.uint8),
            words=np.ndarray((size - 7,), "<u8", buffer=padded, strides=(1,)),
            pairs=np.ndarray((size - 1,), "<u2", buffer=padded, strides=(1,)),
        )


@dataclass(frozen=True)
class Tokens:
    """Where the tokens of each row begin and end.

    Attributes:
        start: int64 ``[T]`` first character of each token.
        end: int64 ``[T]`` one past the last character.
        first: int64 ``[R]`` first token of each row.
        count: int64 ``[R]`` tokens of each row.
    """

    start: Positions
    end: Positions
    first: Positions
    count: Positions

    def __getitem__(self, token: Positions) -> tuple[Positions, Positions]:
        """Start and end of some tokens."""
        return self.start[token], self.end[token]


def row_ends(text: Text) -> Positions:
    """Position of the newline of every row."""
    return np.flatnonzero(text.chars == NEWLINE)


def split_at(text: Text, separator: int) -> Tokens:
    """Tokens between separators without the blanks around them; nothing but blanks is an empty token."""
    ends = np.flatnonzero((text.chars == separator) | (text.chars == NEWLINE))
    last = np.flatnonzero(text.chars[ends] == NEWLINE)
    starts = np.empty_like(ends)
    starts[:1] = PAD
    np.add(ends[:-1], 1, out=starts[1:])
    first = np.empty_like(last)
    first[:1] = 0
    np.add(last[:-1], 1, out=first[1:])
    # The carriage return of a \r\n belongs to the line's end, not to its last token.
    row_end = ends[last]
    ends[last] = row_end - ((text.chars[row_end - 1] == CARRIAGE_RETURN) & (row_end > starts[last]))
    starts, ends = _strip(text, starts, ends)
    return Tokens(starts, ends, first, last - first + 1)


def _strip(text: Text, starts: Positions, ends: Positions) -> tuple[Positions, Positions]:
    blank = text.chars == SPACE
    blank |= text.chars == TAB
    if not blank.any():
        return starts, ends
    solid = np.flatnonzero(~blank)
    starts = np.minimum(solid[np.searchsorted(solid, starts)], ends)
    return starts, np.maximum(solid[np.searchsorted(solid, ends) - 1] + 1, starts)


def split_at_blanks(text: Text) -> Tokens:
    """Tokens between runs of white space; a NUL, the mark of a damaged file, is not white space."""
    solid = (text.chars - np.uint8(ord("\t")) > 4) & (text.chars != SPACE)
    solid[:PAD] = solid[-PAD:] = False
    edges = np.flatnonzero(solid[1:] != solid[:-1]) + 1
    starts, ends = edges[::2], edges[1::2]
    bounds = np.searchsorted(starts, row_ends(text))
    first = np.concatenate([[0], bounds[:-1]])
    return Tokens(starts, ends, first, bounds - first)


def find_in_word(words: Words, char: int) -> Positions:
    """Index of the leftmost ``char`` in each word, 8 where there is none."""
    differing = words ^ _every_byte(char)
    found = (differing - ONES) & ~differing & HIGH_BITS
    below = (found & (~found + np.uint64(1))) - np.uint64(1)
    return (np.bitwise_count(below) >> 3).astype(np.int64)


def _keep(words: Words, mask: Words) -> Words:
    """The characters under the mask, ``0`` elsewhere."""
    return (words & mask) | (ZERO_CHARS & ~mask)


def _eight_digits(words: Words) -> tuple[Words, Words]:
    """Value of eight decimal digits, and a word that is not 0 where one of them is no digit."""
    digits = words ^ ZERO_CHARS
    bad = ((digits + _every_byte(0x76)) | digits) & HIGH_BITS
    twos = (digits * np.uint64(10) + (digits >> np.uint64(8))) & np.uint64(0x00FF00FF00FF00FF)
    fours = (twos * np.uint64(100) + (twos >> np.uint64(16))) & np.uint64(0x0000FFFF0000FFFF)
    return (fours * np.uint64(10_000) + (fours >> np.uint64(32))) & np.uint64(0xFFFFFFFF), bad


def _nibbles(words: Words) -> tuple[Words, Words]:
    """Value of each of eight hex digits, and a word that is not 0 where one of them is no hex digit."""
    digit = words ^ ZERO_CHARS
    letter = (words | _every_byte(0x20)) ^ _every_byte(0x60)
    not_digit = digit + _every_byte(0x76)
    not_letter = (letter + _every_byte(0x79)) | ~(letter + _every_byte(0x7F))
    bad = ((not_digit & not_letter) | words) & HIGH_BITS
    is_letter = (words >> np.uint64(6)) & ONES
    return (words & _every_byte(0x0F)) + is_letter * np.uint64(9), bad


def hex_numbers(text: Text, start: Positions, end: Positions) -> tuple[NDArray[np.uint32], Mask]:
    """Numbers of 1 to 8 hex digits.

    Returns:
        Values uint32 ``[F]`` and where they are valid, bool ``[F]``.
    """
    length = end - start
    nibbles, bad = _nibbles(_keep(text.words[end - 8], LAST[np.clip(length, 0, 8)]))
    pairs = ((nibbles & EVEN_NIBBLES) << np.uint64(4)) | ((nibbles >> np.uint64(8)) & EVEN_NIBBLES)
    value = np.zeros_like(pairs)
    for byte in range(4):
        value = (value << np.uint64(8)) | ((pairs >> np.uint64(16 * byte)) & np.uint64(0xFF))
    return value.astype(np.uint32), (bad == 0) & (length >= 1) & (length <= 8)


def hex_bytes(words: Words) -> tuple[NDArray[np.uint8], Mask]:
    """Bytes of rows of hex digits, uint64 ``[F, k]`` to uint8 ``[F, 4k]``, and which rows are valid."""
    nibbles, bad = _nibbles(words)
    pairs = (nibbles << np.uint64(4)) | (nibbles >> np.uint64(8))
    valid: Mask = (bad == 0).all(axis=1)
    return pairs.view(np.uint8)[:, ::2], valid


def hex_runs(text: Text, start: Positions, end: Positions, width: int) -> tuple[NDArray[np.uint8], Mask]:
    """Up to ``width`` bytes written without separators; bytes beyond the end are 0."""
    num_digits = end - start
    words = np.empty((len(start), width // 4), np.uint64)
    for k in range(width // 4):
        words[:, k] = _keep(text.words[start + 8 * k], FIRST[np.clip(num_digits - 8 * k, 0, 8)])
    return hex_bytes(words)


def hex_tokens(
    text: Text, tokens: Tokens, first: Positions, count: Positions, width: int
) -> tuple[NDArray[np.uint8], Mask]:
    """Up to ``width`` bytes written as one token of two digits each; bytes beyond the last are 0."""
    lane = np.arange(width)
    carried = lane < count[:, None]
    start, end = tokens[np.minimum(first[:, None] + lane, len(tokens.start) - 1)]
    pairs = np.where(carried, text.pairs[start], np.uint16(0x3030))
    payload, valid = hex_bytes(pairs.view(np.uint64))
    return payload, valid & ((end - start == 2) | ~carried).all(axis=1)


def small_numbers(text: Text, start: Positions, end: Positions) -> tuple[Positions, Mask]:
    """Whole decimal numbers of 1 to 8 digits and where they are valid."""
    length = end - start
    value, bad = _eight_digits(_keep(text.words[end - 8], LAST[np.clip(length, 0, 8)]))
    return value.astype(np.int64), (bad == 0) & (length >= 1) & (length <= 8)


def decimals(text: Text, start: Positions, end: Positions) -> tuple[NDArray[np.float64], Mask]:
    """Decimal numbers, correctly rounded.

    A number of at most 10 digits, a point and at most 7 digits is an integer up to 2^53 divided by a power
    of ten: both are exact doubles, so the quotient is the nearest double (Clinger, 1990). Anything else is
    left to polars' parser.

    Returns:
        Values float64 ``[F]`` and where they are valid and finite, bool ``[F]``.
    """
    length = end - start
    tail = _keep(text.words[end - 8], LAST[np.clip(length, 0, 8)])
    num_fraction = 7 - find_in_word(tail, ord("."))
    num_shown = np.maximum(num_fraction, 0)
    fraction, bad_fraction = _eight_digits(_keep(tail, LAST[num_shown]))
    point = end - num_shown - 1
    num_whole = point - start
    low, bad_low = _eight_digits(_keep(text.words[point - 8], LAST[np.clip(num_whole, 0, 8)]))
    high, bad_high = _eight_digits(_keep(text.words[point - 16], LAST[np.clip(num_whole - 8, 0, 8)]))
    scale = POWERS_OF_TEN[num_shown]
    digits = (high * np.uint64(10**8) + low) * scale + fraction
    valid = (num_fraction >= 0) & (num_whole >= 1) & (num_whole <= 10) & (digits <= EXACT_FLOAT)
    valid &= (bad_fraction | bad_low | bad_high) == 0
    value = digits / scale.astype(np.float64)
    if not valid.all():
        other = np.flatnonzero(~valid)
        value[other], valid[other] = _other_decimals(text, start[other], end[other])
    return value, valid


def _other_decimals(text: Text, start: Positions, end: Positions) -> tuple[NDArray[np.float64], Mask]:
    """Decimal numbers of any length and with exponents, through polars' CSV reader."""
    length = end - start
    value, valid = np.full(len(start), np.nan), (length >= 1) & (length <= MAX_NUMBER_CHARS)
    lane = np.arange(MAX_NUMBER_CHARS + 1)
    chars = text.chars[start[valid, None] + lane]
    inside = lane < length[valid, None]
    numeric = (_NUMBER_CHARS[chars] | ~inside).all(axis=1)
    valid[valid] = numeric
    chars[~inside] = NEWLINE
    lines = chars[numeric][lane <= length[valid, None]].tobytes()
    if lines:
        column = pl.read_csv(io.BytesIO(lines), has_header=False, schema={"number": pl.String})["number"]
        value[valid] = column.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
    return value, np.isfinite(value)


_NUMBER_CHARS = np.isin(np.arange(256), np.frombuffer(b"0123456789+-.eE", np.uint8))
