"""PostgreSQL's binary COPY rows as one numpy structured array: one `tobytes` instead of a loop over rows."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache

import numpy as np
import numpy.typing as npt

HEADER = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
TRAILER = b"\xff\xff"

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

#: Where a row of any features table holds its spectrogram_id: after the field count and a timestamp with its length comes
#: the id's own length.
_ID_AT = 2 + (4 + 8) + 4

Columns = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """Rows of one width for one table, encoded, without a spectrogram_id: that is known only to who holds the claim."""

    table: str
    columns: tuple[str, ...]
    data: bytes
    n_rows: int

    def with_spectrogram(self, spectrogram_id: int) -> bytearray:
        """Return the rows with their id filled in."""
        data = bytearray(self.data)
        rows = np.frombuffer(data, dtype=np.uint8).reshape(self.n_rows, -1)
        rows[:, _ID_AT : _ID_AT + 4] = np.frombuffer(spectrogram_id.to_bytes(4, "big"), dtype=np.uint8)
        return data


def timestamp_to_us(at: datetime) -> int:
    """Microseconds since 2000-01-01 UTC: timestamptz on the wire."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def frame_times_us(
    recorded_at: datetime, indices: npt.NDArray[np.int64], step: int, rate: int
) -> npt.NDArray[np.int64]:
    """Wire times of recorded_at + index * step / rate seconds, to the nearest microsecond."""
    return timestamp_to_us(recorded_at) + (indices * step * 1_000_000 + rate // 2) // rate


def _is_vector(shape: tuple[int, ...], kind: str) -> bool:
    return len(shape) == 1 and kind == "f"


@lru_cache(maxsize=64)
def _empty_row(columns: tuple[tuple[str, np.dtype[np.generic], tuple[int, ...]], ...]) -> npt.NDArray[np.void]:
    """One row with everything in it but the values."""
    fields: list[tuple[object, ...]] = [("n_fields", ">i2")]
    for name, dtype, shape in columns:
        fields.append((f"{name}.length", ">i4"))
        if _is_vector(shape, dtype.kind):
            fields += [(f"{name}.dim", ">i2"), (f"{name}.unused", ">i2"), (name, ">f2", shape)]
        elif shape:
            fields.append((name, "<i2", shape))
        else:
            fields.append((name, dtype.newbyteorder(">")))
    row = np.zeros(1, dtype=np.dtype(fields))
    row["n_fields"] = len(columns)
    for name, dtype, shape in columns:
        row[f"{name}.length"] = row.dtype[name].itemsize + (4 if _is_vector(shape, dtype.kind) else 0)
        if _is_vector(shape, dtype.kind):
            row[f"{name}.dim"] = shape[0]
    return row


def encode_rows(table: str, columns: Columns) -> RowBlock:
    """Encode equally long columns, in table order, as binary COPY rows without header and trailer.

    A 1-D array is a plain column of its own type (int32, int64, float32; timestamptz as int64). A 2-D float array of shape
    (rows, dim) is a halfvec, a 2-D int16 array a bytea of little-endian samples.
    """
    template = _empty_row(tuple((name, values.dtype, values.shape[1:]) for name, values in columns.items()))
    n_rows = len(next(iter(columns.values())))
    rows = np.repeat(template, n_rows)
    for name, values in columns.items():
        rows[name] = values
    return RowBlock(table, tuple(columns), rows.tobytes(), n_rows)
