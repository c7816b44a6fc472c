"""The text formats: each parses a block of lines into candidate frames and verdicts, all rows at once."""

import re
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from core.can import quarantine
from core.can.blocks import MAX_LINE_BYTES
from core.can.frames import (
    CLASSIC_PAYLOAD_BYTES,
    EXTENDED_ID_DIGITS,
    FD_PAYLOAD_BYTES,
    MAX_EXTENDED_ID,
    MAX_STANDARD_ID,
    Frames,
)
from core.can.quarantine import Candidates, Verdicts
from core.can.scan import (
    COMMA,
    PAD,
    Mask,
    Positions,
    Text,
    Tokens,
    decimals,
    find_in_word,
    hex_numbers,
    hex_runs,
    hex_tokens,
    row_ends,
    small_numbers,
    split_at,
    split_at_blanks,
)

Parse = Callable[[bytes], Candidates]
"""Takes a padded block (see ``core.can.blocks.Block``)."""

CSV_COLUMNS = ("timestamp", "arbitration_id", "data_field")
LABEL_COLUMN = "attack"


@dataclass(frozen=True)
class CsvLayout:
    """Which columns of a can-train-and-test CSV hold what, found by the header's names."""

    num_columns: int
    timestamp: int
    arbitration_id: int
    data_field: int
    attack: int | None

    @classmethod
    def of(cls, header: bytes) -> "CsvLayout | None":
        """Read a header line; None where it is not the header of this format."""
        names = [name.strip().lower() for name in header.decode("utf-8", "replace").split(",")]
        if len(set(names)) < len(names) or not set(CSV_COLUMNS) <= set(names):
            return None
        label = names.index(LABEL_COLUMN) if LABEL_COLUMN in names else None
        timestamp, arbitration_id, data_field = (names.index(name) for name in CSV_COLUMNS)
        return cls(len(names), timestamp, arbitration_id, data_field, label)


class _Rows:
    """Rows of one block with the right shape, and what is wrong with them."""

    def __init__(self, text: Text, tokens: Tokens, num_columns: tuple[int, int]) -> None:
        fewest, most = num_columns
        ends = row_ends(text)
        starts = np.concatenate([[PAD], ends[:-1] + 1])
        self.text, self.tokens = text, tokens
        self.verdicts = Verdicts(len(ends))
        blank = (ends == starts) | ((ends == starts + 1) & (text.chars[starts] == ord("\r")))
        self.verdicts.reject(quarantine.BLANK, blank | (tokens.count == 0))
        self.verdicts.reject(quarantine.TOO_LONG, ends - starts > MAX_LINE_BYTES)
        self.verdicts.reject(quarantine.COLUMNS, (tokens.count < fewest) | (tokens.count > most))
        self.rows = np.flatnonzero(self.verdicts.reason == quarantine.GOOD)
        self.first = tokens.first[self.rows]
        self.count = tokens.count[self.rows]

    def __len__(self) -> int:
        return len(self.rows)

    def reject(self, reason: int, bad: Mask) -> None:
        self.verdicts.reject(reason, bad, self.rows)

    def token(self, column: int | Positions) -> tuple[Positions, Positions]:
        return self.tokens[self.first + column]

    def equals(self, column: int | Positions, word: bytes) -> Mask:
        """Where a token is a word of 1 to 8 characters."""
        start, end = self.token(column)
        unused = 64 - 8 * len(word)
        wanted = int.from_bytes(word, "little") << unused
        equal: Mask = self.text.words[start] << np.uint64(unused) == np.uint64(wanted)
        equal &= end - start == len(word)
        return equal

    def timestamps(self, start: Positions, end: Positions) -> NDArray[np.float64]:
        value, valid = decimals(self.text, start, end)
        self.reject(quarantine.TIMESTAMP, ~valid | (value < 0))
        return value

    def ids(self, start: Positions, end: Positions) -> NDArray[np.uint32]:
        value, valid = hex_numbers(self.text, start, end)
        self.reject(quarantine.ID, ~valid | (value > MAX_EXTENDED_ID))
        return value

    def payload_runs(self, start: Positions, end: Positions) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Payload written as one run of digits, and its length in bytes."""
        num_digits = end - start
        possible = quarantine.are_payload_lengths(num_digits // 2)
        self.reject(quarantine.PAYLOAD, num_digits % 2 != 0)
        self.reject(quarantine.PAYLOAD_LENGTH, ~possible)
        end = np.where(possible, end, start)
        payload, valid = hex_runs(self.text, start, end, _width((end - start) // 2))
        self.reject(quarantine.PAYLOAD, ~valid)
        return payload, ((end - start) // 2).astype(np.uint8)

    def payload_tokens(
        self, column: int, count: Positions, dlc: Positions
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Payload written as ``count`` tokens from a column on, and its length in bytes."""
        self.reject(quarantine.PAYLOAD_LENGTH, ~quarantine.are_payload_lengths(count))
        self.reject(quarantine.DLC, count != dlc)
        count = np.clip(count, 0, FD_PAYLOAD_BYTES)
        payload, valid = hex_tokens(self.text, self.tokens, self.first + column, count, _width(count))
        self.reject(quarantine.PAYLOAD, ~valid)
        return payload, count.astype(np.uint8)

    def candidates(
        self,
        *,
        timestamp: NDArray[np.float64],
        arbitration_id: NDArray[np.uint32],
        payload: NDArray[np.uint8],
        length: NDArray[np.uint8],
        extended: Mask | None = None,
        remote: Mask | None = None,
        attack: Mask | None = None,
    ) -> Candidates:
        """Gather the columns; ids above 11 bits are extended in every text format."""
        wide = arbitration_id > MAX_STANDARD_ID
        frames = Frames(
            timestamp=timestamp,
            arbitration_id=arbitration_id,
            extended=wide if extended is None else wide | extended,
            remote=np.zeros(len(self), bool) if remote is None else remote,
            length=length,
            payload=payload,
            attack=np.full(len(self), -1, np.int8) if attack is None else attack.astype(np.int8),
        )
        return Candidates(frames, self.rows, self.verdicts)


def _width(num_bytes: Positions) -> int:
    most = num_bytes.max(initial=0)
    return CLASSIC_PAYLOAD_BYTES if most <= CLASSIC_PAYLOAD_BYTES else FD_PAYLOAD_BYTES


def parse_csv(padded: bytes, layout: CsvLayout) -> Candidates:
    """can-train-and-test: ``timestamp,arbitration_id,data_field,attack``."""
    text = Text.of(padded)
    rows = _Rows(text, split_at(text, COMMA), (layout.num_columns, layout.num_columns))
    timestamp = rows.timestamps(*rows.token(layout.timestamp))
    arbitration_id = rows.ids(*rows.token(layout.arbitration_id))
    payload, length = rows.payload_runs(*rows.token(layout.data_field))
    attack = None
    if layout.attack is not None:
        attack = rows.equals(layout.attack, b"1")
        rows.reject(quarantine.LABEL, ~attack & ~rows.equals(layout.attack, b"0"))
    return rows.candidates(
        timestamp=timestamp, arbitration_id=arbitration_id, payload=payload, length=length, attack=attack
    )


def parse_hcrl_csv(padded: bytes) -> Candidates:
    """HCRL Car-Hacking: ``timestamp,id,dlc,byte,...,R|T``, without header, as many bytes as the DLC says."""
    text = Text.of(padded)
    rows = _Rows(text, split_at(text, COMMA), (4, 4 + FD_PAYLOAD_BYTES))
    timestamp = rows.timestamps(*rows.token(0))
    arbitration_id = rows.ids(*rows.token(1))
    dlc, valid = small_numbers(text, *rows.token(2))
    rows.reject(quarantine.DLC, ~valid)
    payload, length = rows.payload_tokens(3, rows.count - 4, dlc)
    flag = rows.count - 1
    attack = rows.equals(flag, b"T")
    rows.reject(quarantine.LABEL, ~attack & ~rows.equals(flag, b"R"))
    return rows.candidates(
        timestamp=timestamp, arbitration_id=arbitration_id, payload=payload, length=length, attack=attack
    )


def parse_hcrl_txt(padded: bytes) -> Candidates:
    """HCRL text: ``Timestamp: 0.000224  ID: 0329  000  DLC: 8  d7 a7 ...``; flags 100: a remote frame."""
    text = Text.of(padded)
    rows = _Rows(text, split_at_blanks(text), (7, 7 + FD_PAYLOAD_BYTES))
    named = rows.equals(2, b"ID:") & rows.equals(5, b"DLC:")
    rows.reject(quarantine.COLUMNS, ~named)
    timestamp = rows.timestamps(*rows.token(1))
    arbitration_id = rows.ids(*rows.token(3))
    remote = rows.equals(4, b"100")
    rows.reject(quarantine.FLAGS, ~remote & ~rows.equals(4, b"000"))
    dlc, valid = small_numbers(text, *rows.token(6))
    rows.reject(quarantine.DLC, ~valid)
    count = rows.count - 7
    payload, length = rows.payload_tokens(7, count, np.where(remote & (count == 0), 0, dlc))
    payload = np.where(remote[:, None], np.uint8(0), payload)
    length = np.where(remote, np.uint8(0), length)
    return rows.candidates(
        timestamp=timestamp, arbitration_id=arbitration_id, payload=payload, length=length, remote=remote
    )


def _enclosed(rows: _Rows, column: int, brackets: bytes, reason: int) -> tuple[Positions, Positions]:
    """Inside of a bracketed token."""
    start, end = rows.token(column)
    chars = rows.text.chars
    rows.reject(reason, (chars[start] != brackets[0]) | (chars[end - 1] != brackets[1]))
    return start + 1, end - 1


def parse_candump_log(padded: bytes) -> Candidates:
    """Candump -l: ``(epoch) can0 ID#HEX``; ``ID##FHEX`` is CAN FD with flags F, ``ID#R`` a remote frame.

    A last token ``R`` or ``T`` (received, transmitted) is allowed.
    """
    text = Text.of(padded)
    rows = _Rows(text, split_at_blanks(text), (3, 4))
    timestamp = rows.timestamps(*_enclosed(rows, 0, b"()", quarantine.TIMESTAMP))
    start, end = rows.token(2)
    mark = start + find_in_word(text.words[start], ord("#"))
    rows.reject(quarantine.ID, (text.chars[mark] != ord("#")) | (mark >= end))
    arbitration_id = rows.ids(start, mark)
    extended = mark - start == EXTENDED_ID_DIGITS
    after = text.chars[mark + 1]
    flexible = after == ord("#")
    remote = (after | 0x20) == ord("r")
    _, flags_valid = hex_numbers(text, mark + 2, mark + 3)
    remote_valid = (end == mark + 2) | ((end == mark + 3) & flags_valid)
    rows.reject(quarantine.FLAGS, (flexible & ((mark + 3 > end) | ~flags_valid)) | (remote & ~remote_valid))
    last = rows.count - 1
    rows.reject(quarantine.COLUMNS, (last == 3) & ~rows.equals(last, b"R") & ~rows.equals(last, b"T"))
    start = np.minimum(np.where(flexible, mark + 3, np.where(remote, end, mark + 1)), end)
    payload, length = rows.payload_runs(start, end)
    return rows.candidates(
        timestamp=timestamp,
        arbitration_id=arbitration_id,
        payload=payload,
        length=length,
        extended=extended,
        remote=remote,
    )


def parse_candump_console(padded: bytes) -> Candidates:
    """Candump on a terminal: ``(epoch)  can0  264   [8]  00 03 94 ...`` or ``[8]  remote request``.

    With ``-a`` the payload stands behind its bytes once more, as text in quotes.
    """
    text = Text.of(padded)
    rows = _Rows(text, split_at_blanks(text), (4, 4 + FD_PAYLOAD_BYTES))
    timestamp = rows.timestamps(*_enclosed(rows, 0, b"()", quarantine.TIMESTAMP))
    start, end = rows.token(2)
    arbitration_id = rows.ids(start, end)
    dlc, valid = small_numbers(text, *_enclosed(rows, 3, b"[]", quarantine.DLC))
    rows.reject(quarantine.DLC, ~valid)
    # A row without payload has no fifth token of its own: its count says so.
    remote = (rows.count == 6) & _are_remote(rows)
    count = np.where(_have_text(rows, dlc), dlc, rows.count - 4)
    payload, length = rows.payload_tokens(4, np.where(remote, 0, count), np.where(remote, 0, dlc))
    extended = end - start == EXTENDED_ID_DIGITS
    return rows.candidates(
        timestamp=timestamp,
        arbitration_id=arbitration_id,
        payload=payload,
        length=length,
        extended=extended,
        remote=remote,
    )


def _are_remote(rows: _Rows) -> Mask:
    """Where the tokens after the DLC are ``remote request``."""
    at = np.minimum(rows.first + 4, len(rows.tokens.start) - 2)
    start, end = rows.tokens.start[at], rows.tokens.end[at + 1]
    remote: Mask = rows.text.words[start] == int.from_bytes(b"remote r", "little")
    remote &= rows.text.words[end - 8] == int.from_bytes(b" request", "little")
    return remote


def _have_text(rows: _Rows, dlc: Positions) -> Mask:
    """Where a quoted text of as many characters as the DLC tells ends the row; it may hold blanks."""
    present = rows.count - 4 > dlc
    start, _ = rows.token(np.where(present, 4 + dlc, 0))
    _, end = rows.token(rows.count - 1)
    chars = rows.text.chars
    quoted: Mask = (chars[start] == ord("'")) & (chars[end - 1] == ord("'"))
    quoted &= present & (end - start == dlc + 2)
    return quoted


HEADERLESS: tuple[tuple[re.Pattern[bytes], Parse], ...] = (
    (re.compile(rb"[^,]+,\s*[0-9A-Fa-f]{1,8}\s*,\s*\d{1,2}\s*(,[^,]*)*,\s*[RT]\s*$"), parse_hcrl_csv),
    (re.compile(rb"\s*Timestamp:\s"), parse_hcrl_txt),
    (re.compile(rb"\s*\([^)]*\)\s+\S+\s+[0-9A-Fa-f]{1,8}#"), parse_candump_log),
    (re.compile(rb"\s*\([^)]*\)\s+\S+\s+[0-9A-Fa-f]{1,8}\s+\[\d+\]"), parse_candump_console),
)
"""Which lines belong to which format without a header."""
