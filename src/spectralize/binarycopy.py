"""PostgreSQL's binary COPY rows as one numpy structured array: one `tobytes` instead of a loop over rows."""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import numpy as np
import numpy.typing as npt

HEADER = b"PGCOPY\n\xff\r\n\x00" + b"\x00" * 8
TRAILER = b"\xff\xff"

_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)

#: Rows per write: about 4 MB of Mel frames.
_ROWS_PER_WRITE = 16_384

Columns = Mapping[str, npt.NDArray[np.generic]]


def timestamp_to_us(at: datetime) -> int:
    """Microseconds since 2000-01-01 UTC: timestamptz on the wire."""
    return (at - _EPOCH) // timedelta(microseconds=1)


def frame_times_us(
    recorded_at: datetime, indices: npt.NDArray[np.int64], step: int, rate: int
) -> npt.NDArray[np.int64]:
    """Wire times of recorded_at + index * step / rate seconds, to the nearest microsecond."""
    return timestamp_to_us(recorded_at) + (indices * step * 1_000_000 + rate // 2) // rate


def _is_vector(values: npt.NDArray[np.generic]) -> bool:
    return values.ndim == 2 and values.dtype.kind == "f"


def encode_rows(columns: Columns) -> Iterator[bytes]:
    """Encode equally long columns, in table order, as binary COPY rows without header and trailer.

    A 1-D array is a plain column of its own type (int32, int64, float32; timestamptz as int64). A 2-D float array of shape
    (rows, dim) is a halfvec, a 2-D int16 array a bytea of little-endian samples.
    """
    row: list[tuple[object, ...]] = [("n_fields", ">i2")]
    for name, values in columns.items():
        row.append((f"{name}.length", ">i4"))
        if _is_vector(values):
            row += [(f"{name}.dim", ">i2"), (f"{name}.unused", ">i2"), (name, ">f2", (values.shape[1],))]
        elif values.ndim == 2:
            row.append((name, "<i2", (values.shape[1],)))
        else:
            row.append((name, values.dtype.newbyteorder(">")))
    dtype = np.dtype(row)
    n_rows = len(next(iter(columns.values())))
    for start in range(0, n_rows, _ROWS_PER_WRITE):
        stop = min(start + _ROWS_PER_WRITE, n_rows)
        rows = np.zeros(stop - start, dtype=dtype)
        rows["n_fields"] = len(columns)
        for name, values in columns.items():
            rows[f"{name}.length"] = dtype[name].itemsize + (4 if _is_vector(values) else 0)
            if _is_vector(values):
                rows[f"{name}.dim"] = values.shape[1]
            rows[name] = values[start:stop]
        yield rows.tobytes()
