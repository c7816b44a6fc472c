"""Which files of telemetry count, and how small ones are merged while others read and write.

A file is named ``{time}-{writer}-{first}-{last}.parquet`` by the flushes of its writer in it. A merged
file is put, durably, before those that it stands for are deleted. Whoever sees both knows by their names that
the flushes of one are among those of the other, and leaves the smaller out: at no moment does a row count
twice or not at all, whoever dies when. What a merge that was killed left behind is deleted by the next one.

Files of earlier releases, ``{time}-{random}.parquet``, stand for themselves.
"""

import fcntl
import io
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import polars as pl

from core.errors import DamagedLogError
from core.events.files import put_if_absent
from core.events.seal import encode_frame, is_file_intact, is_intact

FULL_BYTES = 2**21
"""A file of this size is merged no more: it bounds the memory that merging takes."""
_NAME = re.compile(r"(?P<began>[^-]+)-(?P<writer>[0-9a-f]{32})-(?P<first>\d{8})-(?P<last>\d{8})\.parquet")
_NUM_THREADS = min(4, os.cpu_count() or 1)


class _File(NamedTuple):
    """A file of numbered flushes."""

    path: Path
    began: str
    writer: str
    first: int
    last: int


def flush_name(began: datetime, writer: str, number: int) -> str:
    """The name of a file of one flush.

    Args:
        began: Time of its first sample.
        writer: 32 hexadecimal digits.
        number: How many flushes of the writer came before.
    """
    return _name(f"{began:%Y%m%dT%H%M%S%f}", writer, number, number)


def counting_files(folder: Path) -> list[Path]:
    """The files of a folder that count, by name.

    Raises:
        DamagedLogError: Two files hold some of the same flushes, but neither holds all of the other.
    """
    return divide_files(_list(folder))[0]


def check_files(files: Sequence[Path], schema: pl.Schema) -> None:
    """See that files are as they were written and have columns of the right types.

    Raises:
        DamagedLogError: One is not; it is named.
        FileNotFoundError: One is gone.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:
        problems = list(threads.map(lambda path: _problem(path, schema), files))
    for path, problem in zip(files, problems, strict=True):
        if problem:
            raise DamagedLogError(f"telemetry file {path} cannot be read: {problem}; restore or remove it")


def merge_files(folder: Path) -> None:
    """Merge neighbouring small files of each writer, unless another process is at it.

    Damaged files are left alone: whoever reads them says so.

    Raises:
        DamagedLogError: As of ``counting_files``.
        OSError: The folder cannot be read or written; no row is lost.
    """
    with _alone(folder) as alone:
        if not alone:
            return
        counting, superseded = divide_files(_list(folder))
        _delete(superseded)
        for files, frame in _runs(filter(None, map(_parse, counting))):
            first, last = files[0], files[-1]
            name = _name(first.began, first.writer, first.first, last.last)
            put_if_absent(folder / name, encode_frame(frame))
            _delete(file.path for file in files)


def _problem(path: Path, schema: pl.Schema) -> str:
    try:
        intact = is_file_intact(path)
        if intact is False:
            return "it is not as it was written"
        if intact is None:  # nothing vouches for it: see whether it can be read
            pl.read_parquet(path, glob=False, hive_partitioning=False)
        found = pl.read_parquet_schema(path)
    except FileNotFoundError:
        raise
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError) as error:
        return str(error)
    wrong = [name for name, kind in found.items() if schema.get(name, kind) != kind]
    return f"columns {', '.join(wrong)} are of other types" if wrong else ""


def _list(folder: Path) -> list[Path]:
    """All files of telemetry in a folder.

    A listing is no snapshot: it can miss both a merged file and those deleted after it was put. Then the next
    one differs from it: two in a row that are alike missed nothing.
    """
    before = None
    while (paths := sorted(folder.glob("*.parquet"))) != before:
        before = paths
    return paths


def divide_files(paths: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files that count, by name, and those that others stand for.

    Raises:
        DamagedLogError: As of `counting_files`.
    """
    numbered: dict[str, list[_File]] = defaultdict(list)
    counting, superseded = [], []
    for path in paths:
        if file := _parse(path):
            numbered[file.writer].append(file)
        else:
            counting.append(path)
    for files in numbered.values():
        widest: _File | None = None
        for file in sorted(files, key=lambda file: (file.first, -file.last)):
            if widest is None or file.first > widest.last:
                widest = file
                counting.append(file.path)
            elif file.last <= widest.last:
                superseded.append(file.path)
            else:
                raise DamagedLogError(
                    f"telemetry files {widest.path} and {file.path.name} hold some of the same samples: one "
                    "was renamed; remove it"
                )
    return sorted(counting), superseded


def _runs(files: Iterable[_File]) -> Iterator[tuple[list[_File], pl.DataFrame]]:
    """Neighbouring small files of one writer with what they hold; runs of one are left out."""
    run: list[_File] = []
    contents: list[bytes] = []
    for file in sorted(files, key=lambda file: (file.writer, file.first)):
        content = file.path.read_bytes()
        fits = len(content) < FULL_BYTES and is_intact(content)
        if run and (not fits or run[0].writer != file.writer or sum(map(len, contents)) >= FULL_BYTES):
            yield from _joined(run, contents)
            run, contents = [], []
        if fits:
            run.append(file)
            contents.append(content)
    yield from _joined(run, contents)


def _joined(run: list[_File], contents: list[bytes]) -> Iterator[tuple[list[_File], pl.DataFrame]]:
    if len(run) > 1:
        # Diagonal: no column is lost that another release wrote.
        yield run, pl.concat([pl.read_parquet(io.BytesIO(part)) for part in contents], how="diagonal")


@contextmanager
def _alone(folder: Path) -> Iterator[bool]:
    """Whether no other process merges here: the kernel's lock, which ends with whoever holds it."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _delete(paths: Iterable[Path]) -> None:
    for path in paths:
        path.unlink(missing_ok=True)


def _parse(path: Path) -> _File | None:
    match = _NAME.fullmatch(path.name)
    return match and _File(path, match["began"], match["writer"], int(match["first"]), int(match["last"]))


def _name(began: str, writer: str, first: int, last: int) -> str:
    return f"{began}-{writer}-{first:08d}-{last:08d}.parquet"
