"""One recording: what is known of it, and its windows as arrays.

xarray takes a second to import, so only what makes arrays does: a listing does not wait for it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from spectralize.errors import ReadError, as_one_line
from spectralize.reader import frames
from spectralize.reader.catalogue import Found
from spectralize.reader.frames import Window
from spectralize.reader.given import as_text, shown
from spectralize.reader.spectrograms import Spectrogram

if TYPE_CHECKING:
    import xarray as xr

    from spectralize.reader.arrays import Attributes, Reference
    from spectralize.reader.store import Store

T = TypeVar("T")

_UNITS: dict[str, Attributes] = {
    "min": {"units": "full scale", "long_name": "Lowest sample"},
    "max": {"units": "full scale", "long_name": "Highest sample"},
    "rms": {"units": "full scale", "long_name": "Root mean square of the samples"},
    "peak": {"units": "full scale", "long_name": "Largest sample, without its sign"},
    "mel_mean": {"units": "dB", "long_name": "Mel power, mean of the second"},
    "mel_std": {"units": "dB", "long_name": "Mel power, standard deviation in the second"},
    "audio": {"units": "full scale", "long_name": "Sample"},
}


@dataclass(frozen=True, slots=True)
class Recording(Found):
    """One object that decoded, with the spectrograms that were current when it was looked up.

    What it returns does not change while it lives, also if a newer spectrogram supersedes one of its own. Rows that
    maintenance removes after that are an error, never an array with holes.

    Attributes
    ----------
    id
        Number of the object in this database.
    uid
        The object's name for the world outside, made of bucket, key, ETag and size: the same in a store that was rebuilt
        from the same bucket.
    tags
        What the file declares, by name: the columns of `recordings` that have a value, and all other tags.
    spectrograms
        By profile.
    refusals
        By profile: outcome (rejected or failed), class and reason, where there is no spectrogram.
    """

    _store: Store = field(repr=False, compare=False)

    @classmethod
    def _of(cls, found: Found, store: Store) -> Recording:
        return cls(**{item.name: getattr(found, item.name) for item in fields(Found)}, _store=store)

    @property
    def url(self) -> str:
        """``s3://bucket/key``."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def duration_s(self) -> float | None:
        """Length in seconds as decoded, or None if nothing was."""
        return self.decoded_duration_s

    @property
    def recorded_at(self) -> datetime | None:
        """Time of the first sample; of the newest spectrogram, if they differ."""
        newest = max(self.spectrograms.values(), key=lambda item: (item.generation, item.loaded_at), default=None)
        return newest.recorded_at if newest else None

    @property
    def outcome(self) -> str:
        """The best there is of any profile: loaded, partial, rejected or failed."""
        if self.spectrograms:
            return "loaded" if any(item.status == "complete" for item in self.spectrograms.values()) else "partial"
        return "rejected" if any(why[0] == "rejected" for why in self.refusals.values()) else "failed"

    def __repr__(self) -> str:
        length = "" if self.duration_s is None else f", {self.duration_s:.2f} s"
        profiles = ", ".join(self.spectrograms) or "no spectrogram"
        return f"<Recording {self.id} {as_one_line(self.url)}: {self.outcome}{length}; {profiles}>"

    def spectrogram(self, profile: str | None = None) -> Spectrogram:
        """Return what was computed for a profile; the only one, or the store's default, unless one is named.

        Raises
        ------
        ReadError
            If there is none of that profile, or no profile was named and there are several.
        """
        profile = self._store.profile if profile is None else as_text("profile", profile)
        if profile is None and len(self.spectrograms) == 1:
            return next(iter(self.spectrograms.values()))
        if profile in self.spectrograms:
            return self.spectrograms[profile]
        if profile is None and self.spectrograms:
            raise ReadError(f"{self._name} has several profiles: say profile={_either(self.spectrograms)}")
        refusals = [self.refusals[profile]] if profile in self.refusals else list(self.refusals.values())
        if refusals and (profile in self.refusals or not self.spectrograms):
            outcome, reason_class, reason = refusals[0]
            raise ReadError(f"{self._name} was {outcome} ({reason_class}): {as_one_line(reason)}")
        raise ReadError(
            f"{self._name} has no profile {shown(repr(profile))}; it has {', '.join(self.spectrograms) or 'none'}"
        )

    def mel(
        self,
        start_s: float | None = None,
        end_s: float | None = None,
        profile: str | None = None,
        *,
        ref: Reference = 1.0,
        top_db: float | None = None,
    ) -> xr.DataArray:
        """Read the Mel frames that start in [start_s, end_s), seconds from the start of the recording.

        Parameters
        ----------
        start_s, end_s
            Left out, the start and the end of the recording.
        profile
            May be left out if the recording has one only, or the store a default.
        ref, top_db
            As in `librosa.power_to_db`: dB are relative to the power `ref`, or with "max" to the highest cell of the whole
            recording, and clipped at `top_db` below that highest cell.

        Returns
        -------
        Shape (n_frames, n_mels), float32, in dB, with dims ``(time_s, frequency_hz)``; coordinates ``time_s`` (seconds from
        the start), ``time_at`` (UTC) and ``frequency_hz`` (centre of the band); where it comes from is in the attributes.
        Half precision in the store: within 0.016 dB below 64 dB in magnitude, 0.032 dB up to 128 dB.

        Raises
        ------
        ReadError
            If there is no such profile or window, or its rows were removed meanwhile.
        ServiceError
            If the database is away.
        """
        from spectralize.reader import arrays

        found = self.spectrogram(profile)
        ref, top_db = arrays.check_reference(ref, top_db)
        first, stop = self.span(found, start_s, end_s, step_s=found.frame_s, n_rows=found.n_frames)
        mel = self._read(frames.read_mel, Window(found, first, stop))
        return arrays.mel_array(mel, found, first, ref, top_db, self._provenance(found))

    def waveform(
        self, start_s: float | None = None, end_s: float | None = None, profile: str | None = None
    ) -> xr.Dataset:
        """Read the waveform, hop by hop: variables ``min``, ``max`` and ``rms`` along ``time_s``, full scale ±1.

        Parameters and errors as in `mel`; a hop is `hop_length` samples.
        """
        from spectralize.reader import arrays

        found = self._with_waveform(profile)
        first, stop = self.span(found, start_s, end_s, step_s=found.frame_s, n_rows=found.n_hops)
        columns = self._read(frames.read_waveform, Window(found, first, stop))
        return arrays.rows_dataset(
            dict(columns), found, first, found.hop_length, found.sr, _UNITS, self._provenance(found)
        )

    def pcm(self, start_s: float | None = None, end_s: float | None = None, profile: str | None = None) -> xr.DataArray:
        """Read the samples that the database holds, of a profile with ``waveform = "pcm"``: whole hops that start in the window.

        Returns
        -------
        Shape (n_samples,), int16, mono, at the profile's rate, with dim ``time_s``. Parameters and errors as in `mel`.
        """
        from spectralize.reader import arrays

        found = self._with_waveform(profile)
        if found.parameters.get("waveform") != "pcm":
            raise ReadError(f"profile {found.profile} keeps no samples (waveform = pcm); audio() decodes them from S3")
        first, stop = self.span(found, start_s, end_s, step_s=found.frame_s, n_rows=found.n_hops)
        y = self._read(frames.read_pcm, Window(found, first, stop))
        return arrays.samples_array(y, found.sr, first * found.hop_length, "pcm", self._provenance(found))

    def seconds(
        self, start_s: float | None = None, end_s: float | None = None, profile: str | None = None
    ) -> xr.Dataset:
        """Read the roll-up by second, for zoomed-out views.

        Returns
        -------
        Along ``time_s`` ``rms`` and ``peak`` of the samples, ``n_frames``; and along ``frequency_hz`` as well ``mel_mean``
        and ``mel_std`` of the second's frames, in dB relative to 1.0. Parameters and errors as in `mel`.
        """
        from spectralize.reader import arrays

        found = self.spectrogram(profile)
        first, stop = self.span(found, start_s, end_s, step_s=1.0, n_rows=found.n_seconds)
        columns = self._read(frames.read_seconds, Window(found, first, stop))
        return arrays.rows_dataset(columns, found, first, 1, 1, _UNITS, self._provenance(found))

    def audio(self, start_s: float | None = None, end_s: float | None = None, *, mono: bool = True) -> xr.DataArray:
        """Decode a window of the object in S3, at its own rate; only what the window needs is fetched, where the format allows.

        Parameters
        ----------
        start_s, end_s
            Left out, the start and the end of the recording.
        mono
            Average the channels, as the features were computed; otherwise the first dimension is ``channel``.

        Returns
        -------
        Shape (n_samples,) or (channels, n_samples), float32, full scale ±1, with ``time_s`` in seconds.

        Raises
        ------
        ReadError
            If there is no such window, or the object is gone or was overwritten since.
        ServiceError
            If S3 is away.
        """
        from spectralize.reader import arrays
        from spectralize.reader.audio import decode_window

        if self.decoded_duration_s is None or self.decoded_samplerate_hz is None:
            self.spectrogram()
            raise ReadError(f"{self._name} has not been decoded")
        y, first = decode_window(self, self._store.s3(), start_s, end_s, mono=mono)
        provenance: Attributes = {**_UNITS["audio"], **self._object_attributes()}
        return arrays.samples_array(y, self.decoded_samplerate_hz, first, "audio", provenance)

    def span(
        self, found: Spectrogram, start_s: float | None, end_s: float | None, *, step_s: float, n_rows: int
    ) -> tuple[int, int]:
        """Return the rows of a window as (first, stop); see `Spectrogram.span`. Its errors name this recording."""
        try:
            return found.span(start_s, end_s, step_s=step_s, n_rows=n_rows)
        except ReadError as error:
            raise ReadError(f"{self._name}: {error}") from error

    def _with_waveform(self, profile: str | None) -> Spectrogram:
        found = self.spectrogram(profile)
        if not found.n_hops:
            raise ReadError(f"profile {found.profile} keeps no waveform; audio() decodes it from S3")
        return found

    def _read(self, read: Callable[[frames.Connection, Window], T], window: Window) -> T:
        return self._store.session.run(lambda connection: read(connection, window))

    @property
    def _name(self) -> str:
        return f"recording {self.id} ({as_one_line(self.url)})"

    def _object_attributes(self) -> Attributes:
        return {
            "recording": self.id,
            "recording_uid": self.uid,
            "object": self.url,
            "etag": self.etag,
            "sha256": self.sha256 or "",
        }

    def _provenance(self, found: Spectrogram) -> Attributes:
        from spectralize.reader import arrays

        return {
            **self._object_attributes(),
            **arrays.profile_attributes(found),
            "spectrogram": found.spectrogram_id,
            "generation": found.generation,
            "status": found.status,
            "peak_db": found.peak_db,
            "recorded_at": found.recorded_at.isoformat(),
            "recorded_at_origin": found.recorded_at_origin,
            "batch": found.batch_id,
            "core_version": found.core_version,
            "library_versions": json.dumps(found.library_versions, sort_keys=True),
            **({"snapshot": self._store.snapshot_name} if self._store.snapshot_name else {}),
        }


def _either(names: dict[str, Any]) -> str:
    return " or ".join(repr(name) for name in names)
