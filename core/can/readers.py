"""Reading captures of every format into blocks of frames, with bad rows put aside and counted."""

import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import islice
from pathlib import Path

import numpy as np

from core.can import message_logs, quarantine, tables
from core.can.blocks import BOM, Block, open_regular, read_blocks
from core.can.frames import CLASSIC_PAYLOAD_BYTES, Frames
from core.can.labels import AttackRule
from core.can.quarantine import BLANK, GOOD, MAX_EXAMPLE_CHARS, MAX_EXAMPLES, REASONS, Candidates, Quarantine
from core.can.scan import PAD
from core.can.text_formats import HEADERLESS, CsvLayout, Parse, parse_csv
from core.errors import CaptureError
from core.events.heartbeat import beat
from settings.data import MAX_EXPANSION

BLOCK_BYTES = 2 << 20
SNIFFED_BYTES = 1 << 16
NUM_THREADS = min(4, os.cpu_count() or 1)

Describe = Callable[[int], tuple[int, str]]
"""Line number and text of a row of a block."""


class CaptureReader:
    """The frames of one capture in blocks, in order and in bounded memory.

    Iterate over it for ``Frames`` blocks; iterating again reads the file again. ``quarantine`` and
    ``num_frames`` are those of the rows read so far. The last step of the iteration raises CaptureError where
    the capture is refused: no frames, or too large a share of bad rows.

    Timestamps never fall: a single row that runs ahead (later than the next good row, which is not before the
    last one) is put aside alone, then every row that is earlier than an accepted one. The last row of a block
    is compared with the next block, and counts as not ahead where that has no good row.

    Args:
        path: The capture.
        source: Makes the candidates of each block, with a description of their rows.
        attack_rule: Labels frames that have none.
        max_quarantined_fraction: Largest share of bad rows that is accepted.
    """

    def __init__(
        self,
        path: Path,
        source: Callable[[], Iterator[tuple[Candidates, Describe]]],
        attack_rule: AttackRule | None,
        max_quarantined_fraction: float,
    ) -> None:
        self.path = path
        self.quarantine = Quarantine()
        self.num_frames = 0
        self._source = source
        self._attack_rule = attack_rule
        self._max_quarantined_fraction = max_quarantined_fraction
        self._newest = self._previous = 0.0

    def __iter__(self) -> Iterator[Frames]:
        """Read the capture from its beginning.

        Raises:
            CaptureError: The file cannot be read or is refused.
        """
        self.quarantine, self.num_frames = Quarantine(), 0
        self._newest = self._previous = 0.0
        for candidates, describe, next_timestamp in _with_next_timestamp(self._source()):
            frames = self._accept(candidates, next_timestamp)
            self._put_aside(candidates, describe)
            beat(f"reading {self.path.name}", row=self.num_frames + len(frames) + self.quarantine.num_rows)
            if len(frames):
                self.num_frames += len(frames)
                yield self._attack_rule.label(frames) if self._attack_rule else frames
        self._refuse_if_bad()

    def _accept(self, candidates: Candidates, next_timestamp: float) -> Frames:
        frames, rows, verdicts = candidates.frames, candidates.rows, candidates.verdicts
        good = verdicts.reason[rows] == GOOD
        timestamp, good_rows = frames.timestamp[good], rows[good]
        before = np.concatenate([[self._previous], timestamp[:-1]])
        after = np.concatenate([timestamp[1:], [next_timestamp]])
        ahead = (timestamp > after) & (after >= before)
        newest = np.maximum.accumulate(np.maximum(np.where(ahead, 0.0, timestamp), self._newest))
        verdicts.reject(quarantine.AHEAD, ahead, good_rows)
        verdicts.reject(quarantine.BACKWARD, timestamp < newest, good_rows)
        if len(timestamp):
            self._previous, self._newest = float(timestamp[-1]), float(newest[-1])
        good = verdicts.reason[rows] == GOOD
        if not good.all():
            frames = Frames(**{name: column[good] for name, column in vars(frames).items()})
        width = CLASSIC_PAYLOAD_BYTES if frames.length.max(initial=0) <= CLASSIC_PAYLOAD_BYTES else None
        return replace(frames, payload=np.ascontiguousarray(frames.payload[:, :width]))

    def _put_aside(self, candidates: Candidates, describe: Describe) -> None:
        reason = candidates.verdicts.reason
        bad = np.flatnonzero(reason > BLANK)
        for code, count in enumerate(np.bincount(reason[bad])):
            if count:
                total = self.quarantine.reasons.get(REASONS[code], 0)
                self.quarantine.reasons[REASONS[code]] = total + int(count)
        self.quarantine.num_rows += len(bad)
        for row in bad[: MAX_EXAMPLES - len(self.quarantine.examples)].tolist():
            line, text = describe(row)
            self.quarantine.examples.append(
                {"line": line, "reason": REASONS[int(reason[row])], "text": text[:MAX_EXAMPLE_CHARS]}
            )

    def _refuse_if_bad(self) -> None:
        num_bad, num_rows = self.quarantine.num_rows, self.quarantine.num_rows + self.num_frames
        first = self.quarantine.examples[0] if num_bad else None
        where = f"; the first is line {first['line']}: {first['reason']}: {first['text']!r}" if first else ""
        if not self.num_frames:
            raise CaptureError(f"{self.path} holds no frames ({num_bad} bad rows{where})")
        if num_bad > self._max_quarantined_fraction * num_rows:
            raise CaptureError(
                f"{self.path}: {num_bad} of {num_rows} rows are bad, a larger share than "
                f"data.max_quarantined_fraction={self._max_quarantined_fraction}{where}"
            )


def _with_next_timestamp(
    blocks: Iterator[tuple[Candidates, Describe]],
) -> Iterator[tuple[Candidates, Describe, float]]:
    """Each block with the timestamp of the next one's first good row, infinite where there is none."""
    held: tuple[Candidates, Describe] | None = None
    for block in blocks:
        if held:
            yield *held, _first_timestamp(block[0])
        held = block
    if held:
        yield *held, math.inf


def _first_timestamp(candidates: Candidates) -> float:
    good = candidates.verdicts.reason[candidates.rows] == GOOD
    return float(candidates.frames.timestamp[good.argmax()]) if good.any() else math.inf


def open_capture(
    path: Path,
    *,
    attack_rule: AttackRule | None,
    max_quarantined_fraction: float,
    max_expansion: float = MAX_EXPANSION,
    block_bytes: int = BLOCK_BYTES,
) -> CaptureReader:
    """Find out a capture's format and get ready to read it.

    Formats: can-train-and-test CSV, HCRL csv and txt, candump as logged and as on a terminal (each also
    gzip-compressed), parquet, and what python-can reads (asc, blf, trc, db, mf4, its own csv).

    Args:
        path: The capture; its content decides the format, then its suffix.
        attack_rule: Labels the frames of a capture that has no labels; None leaves them unlabelled (-1).
        max_quarantined_fraction: A capture with a larger share of bad rows is refused.
        max_expansion: A capture that decompresses to more than so many times its own size is refused.
        block_bytes: Bytes of text per block; the frames do not depend on it, but for a row that runs ahead
            of a block without good rows.

    Returns:
        The reader.

    Raises:
        CaptureError: The file cannot be read or its format is not known.
    """
    source = _find_source(path, block_bytes, max_expansion)
    return CaptureReader(path, source, attack_rule, max_quarantined_fraction)


def _find_source(
    path: Path, block_bytes: int, max_expansion: float
) -> Callable[[], Iterator[tuple[Candidates, Describe]]]:
    with open_regular(path, max_expansion) as file:
        head = file.read(SNIFFED_BYTES)
    if not head:
        raise CaptureError(f"{path} is empty: it holds no frames")
    if head.startswith(tables.PARQUET_MAGIC):
        return partial(tables.read_parquet, path, max_expansion)
    if suffix := message_logs.find_suffix(path, head):
        return partial(message_logs.read_messages, path, suffix, max_expansion)
    if b"\n" not in head and b"\r" in head.strip():
        raise CaptureError(f"{path}: its lines end with a carriage return alone; write it with LF or CRLF")
    blocks = partial(read_blocks, path, block_bytes, max_expansion)
    matching = Counter[Parse]()
    for line, text in enumerate(head.removeprefix(BOM).split(b"\n"), 1):
        if layout := CsvLayout.of(text):
            return partial(_read_text, blocks, partial(parse_csv, layout=layout), line)
        matching.update(parse for pattern, parse in HEADERLESS if pattern.match(text))
    if matching:
        return partial(_read_text, blocks, matching.most_common(1)[0][0], 0)
    first = head.splitlines()[0][:MAX_EXAMPLE_CHARS]
    raise CaptureError(
        f"{path}: format not known; its first line is {first!r}. Known are CSV with a header "
        f"timestamp,arbitration_id,data_field,attack, HCRL csv and txt, candump, parquet and "
        f"{', '.join(message_logs.SUFFIXES)}"
    )


def _read_text(
    read: Callable[[], Iterator[Block]], parse: Parse, header_line: int
) -> Iterator[tuple[Candidates, Describe]]:
    """Parse blocks on several threads (numpy lets go of the interpreter), in order."""

    def parse_block(block: Block) -> tuple[Candidates, Describe]:
        candidates = parse(block.padded)
        header = header_line - block.first_line
        if 0 <= header < len(candidates.verdicts.reason):
            candidates.verdicts.reason[header] = BLANK
        return candidates, partial(_describe_line, block)

    blocks = read()
    with ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="capture") as pool:
        parsing = deque[Future[tuple[Candidates, Describe]]]()
        for block in islice(blocks, NUM_THREADS + 1):
            parsing.append(pool.submit(parse_block, block))
        while parsing:
            yield parsing.popleft().result()
            for block in islice(blocks, 1):
                parsing.append(pool.submit(parse_block, block))


def _describe_line(block: Block, row: int) -> tuple[int, str]:
    line = block.padded[PAD:-PAD].split(b"\n", row + 1)[row]
    return block.first_line + row, line[: 4 * MAX_EXAMPLE_CHARS].decode("utf-8", "replace").strip("\r")
