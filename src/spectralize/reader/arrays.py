"""Numpy arrays with their axes: xarray with coordinates in seconds, absolute time and Hz, and where they come from."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import xarray as xr
from xarray.indexes import PandasIndex

from spectralize.errors import ReadError
from spectralize.melscale import band_centres_hz
from spectralize.reader.frames import Mel
from spectralize.reader.given import as_number
from spectralize.reader.spectrograms import Spectrogram

#: What dB are relative to: a power, or "max", the highest cell of the whole recording.
Reference = Literal["max"] | float

#: What xarray and netCDF take as attributes: strings, numbers and lists of them.
Attributes = dict[str, Any]

Times = npt.NDArray[np.datetime64]

#: The axes of profiles, by fingerprint and rate: there are few, and each takes as long as a window's other axes together.
_FREQUENCIES: dict[tuple[str, int], tuple[Any, PandasIndex]] = {}

_UTC = {"long_name": "Time (UTC)"}
#: What datetime64[ns] holds, and the longest recording with it.
_EARLIEST, _LATEST = datetime(1678, 1, 1, tzinfo=UTC), datetime(2260, 12, 31, tzinfo=UTC)

_TIME = {"units": "s", "long_name": "Time"}
_FREQUENCY = {"units": "Hz", "long_name": "Frequency"}


def check_reference(ref: object, top_db: object) -> tuple[Reference, float | None]:
    """Return both as what they mean, before anything is read.

    Raises
    ------
    ReadError
        If `ref` is neither "max" nor a positive power, or `top_db` is below 0.
    """
    expected = '"max" or a positive power, such as 1.0'
    is_max = isinstance(ref, str) and ref == "max"
    power = 1.0 if is_max else as_number("ref", ref, expected)
    if not 0 < power < np.inf:
        raise ReadError(f"ref = {ref!r}: must be {expected}")
    if top_db is not None:
        expected = "0 or more, or None to clip nothing"
        clip_db = as_number("top_db", top_db, expected)
        if not clip_db >= 0:
            raise ReadError(f"top_db = {top_db}: must be {expected}")
        top_db = clip_db
    return "max" if is_max else power, top_db


def reference_db(spectrogram: Spectrogram, ref: Reference) -> float:
    """Return what to subtract from dB relative to 1.0 to have them relative to `ref`."""
    if isinstance(ref, str):
        return spectrogram.peak_db
    return float(10.0 * np.log10(max(float(spectrogram.parameters["amin"]), ref)))


def refer_db(mel: Mel, spectrogram: Spectrogram, ref: Reference, top_db: float | None) -> None:
    """Turn dB relative to 1.0 into what ``librosa.power_to_db(S, ref=ref, top_db=top_db)`` gives, in place.

    Both maxima, that of ``ref="max"`` and that below which `top_db` counts, are of the whole recording, also for a window:
    so windows compare.
    """
    shift_db = reference_db(spectrogram, ref)
    if shift_db:
        mel -= np.float32(shift_db)
    if ref == "max":
        # Half precision may have rounded the highest cell up.
        np.minimum(mel, np.float32(0.0), out=mel)
    if top_db is not None:
        np.maximum(mel, np.float32(spectrogram.peak_db - shift_db - top_db), out=mel)


def row_times(spectrogram: Spectrogram, first: int, stop: int, step: int, rate: int) -> tuple[Any, Times]:
    """Return when rows start, in seconds from the start of the recording and in UTC, shape (stop - first,) each.

    Raises
    ------
    ReadError
        If nanoseconds cannot count so far: numpy would go on from the other end of its calendar.
    """
    if not _EARLIEST <= spectrogram.recorded_at <= _LATEST:
        raise ReadError(
            f"spectrogram {spectrogram.spectrogram_id} ({spectrogram.profile}): recorded at "
            f"{spectrogram.recorded_at.isoformat()}, and arrays have times from {_EARLIEST.year} to {_LATEST.year} only"
        )
    indices = np.arange(first, stop, dtype=np.int64)
    time_us = spectrogram.recorded_us + (indices * (step * 1_000_000) + rate // 2) // rate
    return indices * (step / rate), (time_us * 1000).view("datetime64[ns]")


def mel_array(
    mel: Mel, spectrogram: Spectrogram, first: int, ref: Reference, top_db: float | None, provenance: Attributes
) -> xr.DataArray:
    """Frames of one spectrogram, dB relative to 1.0, with dims (time_s, frequency_hz) and dB relative to `ref`."""
    refer_db(mel, spectrogram, ref, top_db)
    rate = spectrogram.sr
    variables, indexes = _time_axis(*row_times(spectrogram, first, first + len(mel), spectrogram.hop_length, rate))
    variables["frequency_hz"], indexes["frequency_hz"] = _frequency_axis(spectrogram)
    # Everything is checked and ours alone: xarray would look through it again and copy it, which takes as long as the query.
    values = xr.Variable(("time_s", "frequency_hz"), mel, _db_attributes(ref, top_db) | provenance, fastpath=True)
    return xr.DataArray(values, coords=variables, indexes=indexes, name="mel", fastpath=True)


def many_mel_array(
    mel: Mel,
    spectrograms: Sequence[Spectrogram],
    firsts: Sequence[int],
    recordings: Sequence[int],
    ref: Reference,
    top_db: float | None,
) -> xr.DataArray:
    """Windows of one shape, with dims (window, time_s, frequency_hz); time_s counts from the start of each window."""
    for number, spectrogram in enumerate(spectrograms):
        refer_db(mel[number], spectrogram, ref, top_db)
    one = spectrograms[0]
    starts = [
        row_times(spectrogram, first, first + 1, spectrogram.hop_length, spectrogram.sr)
        for spectrogram, first in zip(spectrograms, firsts, strict=True)
    ]
    frequency, frequency_index = _frequency_axis(one)
    time_s = np.arange(mel.shape[1]) * one.frame_s
    return xr.DataArray(
        mel,
        dims=("window", "time_s", "frequency_hz"),
        coords=xr.Coordinates(
            {
                "time_s": xr.Variable("time_s", time_s, _TIME),
                "frequency_hz": frequency,
                "recording": xr.Variable("window", np.asarray(recordings, dtype=np.int64)),
                "spectrogram": xr.Variable("window", np.array([item.spectrogram_id for item in spectrograms])),
                "start_s": xr.Variable("window", np.concatenate([start for start, _ in starts]), _TIME),
                "start_at": xr.Variable("window", np.concatenate([at for _, at in starts])),
            },
            indexes={"time_s": PandasIndex(pd.Index(time_s), "time_s"), "frequency_hz": frequency_index},
        ),
        name="mel",
        attrs=_db_attributes(ref, top_db) | profile_attributes(one),
    )


def rows_dataset(
    columns: dict[str, npt.NDArray[Any]],
    spectrogram: Spectrogram,
    first: int,
    step: int,
    rate: int,
    units: dict[str, Attributes],
    provenance: Attributes,
) -> xr.Dataset:
    """Hops or seconds of one spectrogram, a variable per column, along time_s and, for vectors, frequency_hz."""
    n_rows = len(next(iter(columns.values())))
    variables, indexes = _time_axis(*row_times(spectrogram, first, first + n_rows, step, rate))
    if any(values.ndim == 2 for values in columns.values()):
        variables["frequency_hz"], indexes["frequency_hz"] = _frequency_axis(spectrogram)
    return xr.Dataset(
        {
            name: (("time_s", "frequency_hz")[: values.ndim], values, units.get(name, {}))
            for name, values in columns.items()
        },
        coords=xr.Coordinates(variables, indexes=indexes),
        attrs=provenance,
    )


def samples_array(y: npt.NDArray[Any], sr: int, first: int, name: str, provenance: Attributes) -> xr.DataArray:
    """Samples with dim time_s, or dims (channel, time_s)."""
    time_s = (first + np.arange(y.shape[-1], dtype=np.int64)) / sr
    return xr.DataArray(
        y,
        dims=("channel", "time_s")[-y.ndim :],
        coords={"time_s": xr.Variable("time_s", time_s, _TIME)},
        name=name,
        attrs={"sr": sr} | provenance,
    )


def profile_attributes(spectrogram: Spectrogram) -> Attributes:
    """Return what windows of several recordings have in common."""
    return {
        "profile": spectrogram.profile,
        "profile_fingerprint": spectrogram.fingerprint,
        "profile_parameters": json.dumps(spectrogram.parameters, sort_keys=True),
        "sr": spectrogram.sr,
        "hop_length": spectrogram.hop_length,
    }


def _db_attributes(ref: Reference, top_db: float | None) -> Attributes:
    # netCDF knows no None.
    return {"units": "dB", "long_name": "Mel power", "ref": ref} | ({} if top_db is None else {"top_db": top_db})


def _time_axis(time_s: Any, time_at: Times) -> tuple[dict[Any, Any], dict[Any, Any]]:
    index = PandasIndex(pd.Index(time_s), "time_s")
    variables: dict[Any, Any] = dict(index.create_variables())
    variables["time_s"].attrs = _TIME
    variables["time_at"] = xr.Variable(("time_s",), time_at, _UTC, fastpath=True)
    return variables, {"time_s": index}


def _frequency_axis(spectrogram: Spectrogram) -> tuple[Any, PandasIndex]:
    key = (spectrogram.fingerprint, spectrogram.sr)
    if key not in _FREQUENCIES:
        index = PandasIndex(pd.Index(band_centres_hz(spectrogram.parameters, spectrogram.sr)), "frequency_hz")
        variable = index.create_variables()["frequency_hz"]
        variable.attrs = _FREQUENCY
        _FREQUENCIES[key] = variable, index
    variable, index = _FREQUENCIES[key]
    # Values are shared; what is said of them is not.
    return variable.copy(deep=False), index
