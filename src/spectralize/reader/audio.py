"""A window of an object's samples, decoded from ranged reads of S3."""

from __future__ import annotations

from typing import TYPE_CHECKING

from spectralize.errors import ReadError, as_one_line
from spectralize.reader.given import as_seconds
from spectralize.reader.samples import SampleReader, Samples

if TYPE_CHECKING:
    from types_boto3_s3.client import S3Client

    from spectralize.reader.recording import Recording


def decode_window(
    recording: Recording, client: S3Client, start_s: float | None, end_s: float | None, *, mono: bool
) -> tuple[Samples, int]:
    """Return the samples of [start_s, end_s), shape (n_samples,) or (channels, n_samples), and the number of the first one.

    Raises
    ------
    ReadError
        If the window does not lie in the recording, or the object is gone or no longer what was indexed.
    """
    first, stop = sample_span(recording, start_s, end_s)
    with SampleReader(recording, client, mono=mono) as reader:
        return reader.read(first, stop), first


def sample_span(recording: Recording, start_s: float | None, end_s: float | None) -> tuple[int, int]:
    """Return the samples of [start_s, end_s) as (first, stop).

    Raises
    ------
    ReadError
        If the window does not lie in the recording, or holds no sample.
    """
    sr = recording.decoded_samplerate_hz or 0
    n_samples = round((recording.decoded_duration_s or 0.0) * sr)
    start = 0.0 if start_s is None else as_seconds("start_s", start_s)
    end = n_samples / sr if end_s is None else as_seconds("end_s", end_s)
    # Half a sample more rounds to the last one or beyond it; an infinite number of samples rounds to none.
    is_within = 0 <= start < end <= (n_samples + 0.5) / sr
    if not is_within or round(end * sr) > n_samples or round(start * sr) >= round(end * sr):
        raise ReadError(
            f"window {start:g} s to {end:g} s of {as_one_line(recording.url)}: must lie within its {n_samples / sr:.3f} s, and "
            "hold a sample"
        )
    return round(start * sr), round(end * sr)
