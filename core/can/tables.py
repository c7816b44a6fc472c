"""Typed columns into candidate frames, and captures in parquet."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import polars as pl
from numpy.typing import NDArray

from core.can import quarantine
from core.can.bounds import Bound
from core.can.frames import CLASSIC_PAYLOAD_BYTES, FD_PAYLOAD_BYTES, MAX_EXTENDED_ID, MAX_STANDARD_ID, Frames
from core.can.quarantine import Candidates, Verdicts
from core.errors import CaptureError

if TYPE_CHECKING:
    from pyarrow import DictionaryArray, RecordBatch, Table

PARQUET_MAGIC = b"PAR1"
COLUMNS = ("timestamp", "arbitration_id", "data_field", "payload", "length", "extended", "remote", "attack")
ROWS_PER_BLOCK = 100_000
BYTES_PER_ROW = 16
"""The least that a frame takes: a time, an id and a payload."""


@dataclass(frozen=True)
class Columns:
    """Frames as another library hands them over, not checked yet, ``F`` rows.

    Attributes:
        timestamp: float64 ``[F]``, NaN where there is none.
        arbitration_id: int64 ``[F]``, -1 where there is none.
        extended: bool ``[F]``.
        remote: bool ``[F]``.
        attack: int64 ``[F]``: 0, 1, -1 for unlabelled, anything else is bad.
        length: int64 ``[F]``, bytes of payload, -1 where the payload is bad.
        payload: uint8, the bytes of all rows, one row after the other.
    """

    timestamp: NDArray[np.float64]
    arbitration_id: NDArray[np.int64]
    extended: NDArray[np.bool_]
    remote: NDArray[np.bool_]
    attack: NDArray[np.int64]
    length: NDArray[np.int64]
    payload: NDArray[np.uint8]


def check_columns(columns: Columns, verdicts: Verdicts) -> Candidates:
    """Judge typed columns by the same rules as text."""
    largest_id = np.where(columns.extended, MAX_EXTENDED_ID, MAX_STANDARD_ID)
    fits = quarantine.are_payload_lengths(columns.length)
    verdicts.reject(quarantine.TIMESTAMP, ~np.isfinite(columns.timestamp) | (columns.timestamp < 0))
    verdicts.reject(quarantine.ID, (columns.arbitration_id < 0) | (columns.arbitration_id > largest_id))
    verdicts.reject(quarantine.PAYLOAD, columns.length < 0)
    verdicts.reject(quarantine.PAYLOAD_LENGTH, ~fits)
    verdicts.reject(quarantine.LABEL, (columns.attack < -1) | (columns.attack > 1))
    length = np.where(fits, columns.length, 0)
    width = CLASSIC_PAYLOAD_BYTES if length.max(initial=0) <= CLASSIC_PAYLOAD_BYTES else FD_PAYLOAD_BYTES
    payload = np.zeros((len(length), width), np.uint8)
    payload[np.arange(width) < length[:, None]] = columns.payload[
        np.repeat(fits, np.maximum(columns.length, 0))
    ]
    frames = Frames(
        timestamp=columns.timestamp,
        arbitration_id=columns.arbitration_id.astype(np.uint32),
        extended=columns.extended,
        remote=columns.remote,
        length=np.where(columns.remote, 0, length).astype(np.uint8),
        payload=np.where(columns.remote[:, None], np.uint8(0), payload),
        attack=columns.attack.astype(np.int8),
    )
    return Candidates(frames, np.arange(len(length)), verdicts)


def read_parquet(
    path: Path, max_expansion: float
) -> Iterator[tuple[Candidates, Callable[[int], tuple[int, str]]]]:
    """Read parquet with the columns of the can-train-and-test CSV or of ``Frames``.

    ``timestamp`` (seconds; a date and time becomes seconds since 1970, UTC where it has no zone; a duration
    its seconds) and ``arbitration_id`` (hex text or numbers) are needed, and the payload as ``data_field``
    (hex text) or ``payload`` (binary, or a list of bytes of which ``length`` are carried); ``extended``,
    ``remote`` and ``attack`` are used where they are there. A bad row's line is its row number, from 1.

    Args:
        path: The capture.
        max_expansion: The most that its rows may take, times its own size.

    Raises:
        CaptureError: Not readable as parquet, larger than that, a needed column is missing, or one is of a
            type that cannot be read as what it should hold.
    """
    # Not polars, which aborts the process where a damaged byte is a size.
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile, read_metadata
    from pyarrow.types import is_fixed_size_binary

    try:
        written = read_metadata(path)
        leaves = map(written.schema.column, range(written.num_columns))
        texts = [leaf.path for leaf in leaves if leaf.path in COLUMNS and leaf.physical_type == "BYTE_ARRAY"]
        # A text that is written once and named by every row is held once, until its length is known.
        with ParquetFile(path, metadata=written, read_dictionary=texts) as file:
            bound = Bound(path, max_expansion)
            widths = (kind.byte_width for kind in file.schema_arrow.types if is_fixed_size_binary(kind))
            bound.require(written.num_rows * (BYTES_PER_ROW + sum(widths)))
            schema = _to_frame(file.schema_arrow.empty_table()).schema
            expressions = _expressions(path, schema)
            offset = num_bytes = 0
            names = [name for name in schema if name in COLUMNS]
            for batch in file.iter_batches(ROWS_PER_BLOCK, columns=names):
                num_bytes += batch.nbytes + sum(map(_text_bytes, batch.columns))
                bound.require(num_bytes)
                block = _to_frame(batch).select(**expressions)
                yield check_columns(_to_columns(block), Verdicts(block.height)), _describe_row(block, offset)
                offset += block.height
    except (ArrowException, pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise CaptureError(f"cannot read {path} as parquet: {error}") from error


def _text_bytes(column: "DictionaryArray") -> int:
    """Bytes that a column of text or binary, each of them held once, takes with one of them in every row."""
    from pyarrow import compute, types

    if not types.is_dictionary(column.type):
        return 0
    lengths = compute.binary_length(column.dictionary)
    return compute.sum(lengths.take(column.indices)).as_py() or 0


def _to_frame(table: "Table | RecordBatch") -> pl.DataFrame:
    """What was read, once it was seen that it is what it is said to be."""
    from pyarrow import types

    table.validate(full=True)
    for at, kind in enumerate(table.schema.types):
        if types.is_dictionary(kind):
            plain = table.column(at).cast(kind.value_type)
            table = table.set_column(at, table.schema.names[at], plain)
    return cast("pl.DataFrame", pl.from_arrow(table))


def _expressions(path: Path, schema: pl.Schema) -> dict[str, pl.Expr]:
    payload = next((name for name in ("data_field", "payload") if name in schema), None)
    if payload is None or not {"timestamp", "arbitration_id"} <= set(schema):
        raise CaptureError(
            f"{path} has the columns {', '.join(schema)}; needed are timestamp, arbitration_id and "
            f"data_field (or payload)"
        )
    _refuse_types(path, schema, payload)
    arbitration_id = _number(schema, "arbitration_id", pl.Int64, -1)
    extended = arbitration_id > MAX_STANDARD_ID
    if "extended" in schema:
        extended = pl.col("extended").cast(pl.Boolean).fill_null(False)
    return {
        "timestamp": _number(schema, "timestamp", pl.Float64, float("nan")),
        "arbitration_id": arbitration_id,
        "extended": extended,
        "remote": pl.col("remote").cast(pl.Boolean).fill_null(False) if "remote" in schema else pl.lit(False),
        "attack": _number(schema, "attack", pl.Int64, 2) if "attack" in schema else pl.lit(-1, pl.Int64),
        "payload": _payload(schema, payload),
    }


def _refuse_types(path: Path, schema: pl.Schema, payload: str) -> None:
    for name, dtype in schema.items():
        plain = dtype.is_numeric() or dtype in (pl.String, pl.Null)
        inner = dtype.inner if isinstance(dtype, pl.List | pl.Array) else None
        listed = inner is not None and (inner.is_integer() or inner == pl.Null)
        known = {
            "timestamp": plain or dtype in (pl.Datetime, pl.Duration),
            "arbitration_id": plain,
            payload: listed or dtype in (pl.String, pl.Binary, pl.Null),
            **dict.fromkeys(("extended", "remote", "attack", "length"), plain or dtype == pl.Boolean),
        }
        if not known.get(name, True):
            raise CaptureError(
                f"{path}: the column {name} is of type {dtype}, which cannot be read; write timestamp as "
                f"seconds or a date and time, {payload} as hex text, binary or a list of integers, and the "
                f"others as numbers"
            )


def _number(schema: pl.Schema, name: str, dtype: type[pl.Int64 | pl.Float64], bad: float) -> pl.Expr:
    column, written = pl.col(name), schema[name]
    if written == pl.Datetime:
        # A double does not tell times since 1970 apart that are less than a quarter of a microsecond apart.
        column = _divided(column.dt.timestamp("us"), 10**6)
    elif isinstance(written, pl.Duration):
        column = _divided(column.to_physical(), {"ms": 10**3, "us": 10**6, "ns": 10**9}[written.time_unit])
    if name == "arbitration_id" and written == pl.String:
        hexadecimal = pl.when(column.str.contains(r"^[0-9A-Fa-f]{1,8}$")).then(column)
        return hexadecimal.str.to_integer(base=16, strict=False).fill_null(-1)
    if written.is_float() and dtype == pl.Int64:
        column = pl.when(column == column.round()).then(column)
    return column.cast(dtype, strict=False).fill_null(bad)


def _divided(column: pl.Expr, divisor: int) -> pl.Expr:
    """Correctly rounded; polars multiplies by the reciprocal, but for the last rows of a block."""
    return column.cast(pl.Float64).map_batches(lambda series: pl.Series(series.to_numpy() / divisor))


def _payload(schema: pl.Schema, name: str) -> pl.Expr:
    """The payload as a list of bytes; null where it is bad."""
    column, dtype = pl.col(name), schema[name]
    if dtype == pl.String:
        # pandas writes the empty payload of a frame without data as null.
        pairs = pl.when(column.fill_null("").str.contains(r"^([0-9A-Fa-f]{2})*$")).then(column.fill_null(""))
        return pairs.str.decode("hex", strict=False)
    if dtype == pl.Binary:
        return column
    numbers = column.cast(pl.List(pl.UInt8), strict=False)
    if "length" in schema:
        length = _number(schema, "length", pl.Int64, -1)
        numbers = pl.when(length.is_between(0, numbers.list.len())).then(numbers.list.head(length))
    return pl.when(~numbers.list.eval(pl.element().is_null()).list.any()).then(numbers)


def _to_columns(block: pl.DataFrame) -> Columns:
    payload = block["payload"]
    if payload.dtype == pl.Binary:
        length = payload.bin.size()
        data = np.frombuffer(b"".join(payload.drop_nulls().to_list()), np.uint8)
    else:
        length = payload.list.len()
        data = payload.drop_nulls().explode().drop_nulls().to_numpy()  # an empty list explodes to null
    return Columns(
        **{name: block[name].to_numpy() for name in block.columns if name != "payload"},
        length=length.cast(pl.Int64).fill_null(-1).to_numpy(),
        payload=data,
    )


def _describe_row(block: pl.DataFrame, offset: int) -> Callable[[int], tuple[int, str]]:
    return lambda row: (offset + row + 1, str(block.row(row)))
