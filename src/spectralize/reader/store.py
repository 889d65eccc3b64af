"""The store as readers see it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self
from uuid import UUID

import numpy as np

from spectralize.errors import ReadError, as_one_line
from spectralize.reader import frames, snapshots
from spectralize.reader.catalogue import Catalogue, Instant, make_filters
from spectralize.reader.frames import Window
from spectralize.reader.given import as_list, as_number, as_seconds, as_text, is_storable_text, shown
from spectralize.reader.recording import Recording
from spectralize.reader.recordings import Recordings
from spectralize.reader.session import Session
from spectralize.reader.snapshots import Snapshot
from spectralize.reader.spectrograms import Spectrogram

if TYPE_CHECKING:
    import xarray as xr
    from types_boto3_s3.client import S3Client

    from spectralize.reader.arrays import Reference

#: What names a recording: its id, its uid, ``s3://bucket/key`` or a key.
RecordingName = int | str | UUID

#: Of bigint.
_MAX_ID = 2**63 - 1

_EXPIRED = """
SELECT format('%%s (%%s) at %%s', p.name, s.expired_because, to_char(s.expired_at AT TIME ZONE 'UTC', 'YYYY-MM-DD'))
FROM spectralize.spectrograms AS s JOIN spectralize.profiles AS p USING (profile_id)
WHERE s.object_id = %s AND s.status = 'expired' ORDER BY s.expired_at DESC LIMIT 1
"""


def open_store(
    dsn: str | None = None, *, profile: str | None = None, s3: Callable[[], S3Client] | None = None
) -> Store:
    """Open a store for reading. Nothing is connected until something is read.

    Parameters
    ----------
    dsn
        Address of the database, by default that of ``SPECTRALIZE_DSN``.
    profile
        The profile to read where none is named.
    s3
        Makes the client that `Recording.audio` reads objects with; by default boto3's own settings (``AWS_*``).

    Raises
    ------
    ConfigError
        If there is no address, or it is malformed.
    ReadError
        If `profile` is no text.
    """
    return Store(Session(dsn), profile=None if profile is None else as_text("profile", profile), s3=s3)


class Store:
    """Recordings and their features, as they are now or, for a snapshot, as they were pinned.

    Changes nothing, except for creating and dropping snapshots. Safe to share between threads, to use after fork and to
    pickle; every process and thread has a connection of its own.
    """

    def __init__(
        self,
        session: Session,
        *,
        profile: str | None = None,
        s3: Callable[[], S3Client] | None = None,
        snapshot: Snapshot | None = None,
    ) -> None:
        self.session = session
        self.profile = profile
        self._make_s3 = s3
        self._s3: tuple[int, S3Client] | None = None
        self._snapshot = snapshot
        self.catalogue = Catalogue(snapshot.snapshot_id if snapshot else None)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_s3": None}

    def __repr__(self) -> str:
        pinned = f", snapshot {self._snapshot.name!r}" if self._snapshot else ""
        return f"<Store {self.session}{pinned}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections of this process; the next read opens one again."""
        self.session.close()

    @property
    def snapshot_name(self) -> str | None:
        """Name of the snapshot that is read, or None for what is current."""
        return self._snapshot.name if self._snapshot else None

    def s3(self) -> S3Client:
        """Return the client for S3, one per process."""
        if self._s3 is None or self._s3[0] != os.getpid():
            if self._make_s3 is None:
                from spectralize.s3 import open_s3

                self._s3 = os.getpid(), open_s3()
            else:
                self._s3 = os.getpid(), self._make_s3()
        return self._s3[1]

    def recordings(
        self,
        *,
        text: str | None = None,
        bucket: str | None = None,
        key_prefix: str | None = None,
        tags: Mapping[str, Any] | None = None,
        recorded_from: Instant | None = None,
        recorded_to: Instant | None = None,
        min_duration_s: float | None = None,
        max_duration_s: float | None = None,
        outcome: str | Sequence[str] = ("loaded", "partial"),
        profile: str | None = None,
    ) -> Recordings:
        """Describe recordings to find; nothing is read until they are counted or iterated over.

        Parameters
        ----------
        text
            Words that must all occur in key or tags, in any letter case.
        key_prefix
            What the key begins with.
        tags
            Tag name -> value, or values of which one must match; as in ``{"genre": ["jazz", "blues"], "year": "1959"}``.
        recorded_from, recorded_to
            Recorded in [from, to): a day (UTC), or a time with its zone.
        min_duration_s, max_duration_s
            Decoded length in seconds, both inclusive.
        outcome
            "loaded", "partial", "rejected", "failed", or several. The last two are objects that have no spectrogram of some
            profile: the newest of their key, each with its reason in `Recording.refusals`.
        profile
            Only recordings that have it; with `outcome`, those it has this outcome for.

        Raises
        ------
        ReadError
            If that can match nothing.
        """
        return Recordings(
            self,
            make_filters(
                text=text, bucket=bucket, key_prefix=key_prefix, tags=tags, recorded_from=recorded_from,
                recorded_to=recorded_to, min_duration_s=min_duration_s, max_duration_s=max_duration_s, outcome=outcome,
                profile=self.profile if profile is None else profile,
            ),
        )  # fmt: skip

    def recording(self, name: RecordingName) -> Recording:
        """Look one recording up.

        Parameters
        ----------
        name
            Its id or uid, ``s3://bucket/key``, or the key alone. By id or uid an overwritten object can be read until
            maintenance removes what it had; by key it is always the current one.

        Raises
        ------
        ReadError
            If it is not in the store (or the snapshot), has expired, or the key is in several buckets.
        """
        _check_name(name)
        # Twice: between the two lookups the key's object may be superseded, and removed.
        for _ in range(2):
            recording_id = self._resolve(name)
            found = self._by_id([recording_id]).get(recording_id)
            if found is not None:
                return found
        raise ReadError(f"recording {shown(name)}: {self._why_absent(recording_id)}")

    def mel_windows(
        self,
        recordings: Iterable[Recording | RecordingName],
        starts_s: Iterable[float],
        duration_s: float,
        profile: str | None = None,
        *,
        ref: Reference = 1.0,
        top_db: float | None = None,
        fill_db: float | None = None,
    ) -> xr.DataArray:
        """Read many windows of one length at once: what a training step needs, in as few statements as possible.

        Parameters
        ----------
        recordings, starts_s
            A recording (or its id, uid or key) and a start in seconds per window. Give `Recording` objects where you can:
            names are looked up at each call.
        duration_s
            Every window has ``round(duration_s * sr / hop_length)`` frames, from the first that starts at or after its start.
        profile
            May be left out if each recording has one only, and all the same, or the store has a default.
        ref, top_db
            As in `Recording.mel`.
        fill_db
            Value of frames beyond the end of a recording, in dB as returned. Left out, such a window is an error.

        Returns
        -------
        Shape (n_windows, n_frames, n_mels), float32, with dims ``(window, time_s, frequency_hz)``: ``time_s`` counts from
        the window's start; coordinates ``recording``, ``spectrogram``, ``start_s`` and ``start_at`` (UTC) of each window.

        Raises
        ------
        ReadError
            If a recording or window does not exist, or the recordings have no profile and sample rate in common.
        """
        from spectralize.reader import arrays

        asked, starts = as_list("recordings", recordings), as_list("starts_s", starts_s)
        if len(asked) != len(starts) or not asked:
            raise ReadError(f"{len(asked)} recordings and {len(starts)} starts: must be as many, and at least one")
        found = self._look_up(asked)
        chosen = [recording.spectrogram(profile) for recording in found]
        _must_agree(chosen)
        ref, top_db = arrays.check_reference(ref, top_db)
        filling_db = None if fill_db is None else as_number("fill_db", fill_db, "a number, or None to fill nothing")
        length_s = as_seconds("duration_s", duration_s)
        if not 0 < length_s < np.inf:
            raise ReadError(f"duration_s = {length_s}: must be above 0, and finite")
        n_frames = max(1, round(length_s / chosen[0].frame_s))
        windows = [
            _fixed_window(
                recording, spectrogram, as_seconds("starts_s", start), n_frames, is_filled=filling_db is not None
            )
            for recording, spectrogram, start in zip(found, chosen, starts, strict=True)
        ]
        mel = self.session.run(lambda connection: frames.read_many_mel(connection, windows, n_frames))
        array = arrays.many_mel_array(
            mel, chosen, [window.first for window in windows], [recording.id for recording in found], ref, top_db
        )
        for number, window in enumerate(windows):
            if window.n_rows < n_frames:
                array.values[number, window.n_rows :] = filling_db
        return array

    def snapshot(
        self,
        name: str,
        *,
        recordings: Iterable[Recording] | None = None,
        note: str | None = None,
        create: bool = True,
    ) -> Store:
        """Pin what is current now under a name, or open the snapshot of that name if there is one: then nothing changes.

        What is in a snapshot stays readable, whatever supersedes it and whatever maintenance removes, until the snapshot is
        dropped. Only forgetting a recording takes it out.

        Parameters
        ----------
        recordings
            What to pin; everything current, unless given. Only counts when the snapshot is made.
        note
            What it is for.
        create
            False opens only, so that a misspelt name is an error.

        Returns
        -------
        A store that reads the snapshot.

        Raises
        ------
        ReadError
            If there is no such snapshot and none is to be made, or nothing would be in it.
        ConfigError
            If this role may not write snapshots.
        """
        found = self.session.run(lambda connection: snapshots.find_snapshot(connection, name))
        if found is None and not create:
            names = ", ".join(repr(item.name) for item in self.snapshots()) or "none"
            raise ReadError(f"snapshot {name!r}: there is none of that name; there are {names}")
        if found is None:
            ids = None if recordings is None else self._spectrogram_ids(recordings)
            found = self.session.write(
                lambda connection: snapshots.pin(connection, name, note=note, spectrogram_ids=ids)
            )
        return Store(self.session, profile=self.profile, s3=self._make_s3, snapshot=found)

    def require_snapshot(self) -> None:
        """Refuse to go on if the snapshot that is read has been dropped: what it kept may be gone, and none of it is found.

        Raises
        ------
        ReadError
            If so.
        """
        pinned = self._snapshot
        if pinned and not self.session.run(lambda connection: snapshots.is_there(connection, pinned.snapshot_id)):
            raise ReadError(f"snapshot {pinned.name!r} was dropped since it was opened")

    def snapshots(self) -> list[Snapshot]:
        """Return every snapshot, the oldest first."""
        return self.session.run(snapshots.list_snapshots)

    def drop_snapshot(self, name: str) -> None:
        """Delete a snapshot. What nothing else keeps is removed by the next maintenance.

        Raises
        ------
        ReadError
            If there is none of that name.
        """
        if not self.session.write(lambda connection: snapshots.drop(connection, name)):
            raise ReadError(f"snapshot {name!r}: there is none of that name")

    def _spectrogram_ids(self, recordings: Iterable[Recording]) -> list[int]:
        given = as_list("recordings", recordings)
        for item in given:
            if not isinstance(item, Recording):
                raise ReadError(f"recordings: {shown(item)}: must be a Recording, as store.recording() returns it")
            self._must_be_ours(item)
        return [item.spectrogram_id for recording in given for item in recording.spectrograms.values()]

    def _must_be_ours(self, recording: Recording) -> None:
        """Numbers of rows mean nothing in another database, and may well be there."""
        other = recording._store.session
        if other.database != self.session.database:
            raise ReadError(f"recording {recording.id} ({as_one_line(recording.url)}) is of another store: {other}")

    def _resolve(self, name: RecordingName) -> int:
        if isinstance(name, int | np.integer):
            if not 0 < name <= _MAX_ID:
                raise ReadError(f"recording {shown(name)}: not in the store")
            return int(name)
        uid = _as_uid(name)
        if uid is not None:
            found = self.session.run(lambda connection: self.catalogue.id_of_uid(connection, str(uid)))
            if found is not None:
                return found
        if isinstance(name, str):
            bucket, key = _split(name)
            ids = self.session.run(lambda connection: self.catalogue.ids_of_key(connection, bucket, key))
            if len(ids) > 1:
                raise ReadError(f"key {as_one_line(key)!r} is in several buckets: write s3://{'|'.join(ids)}/…")
            if ids:
                return next(iter(ids.values()))
        raise ReadError(f"recording {shown(name)}: not in the store")

    def _look_up(self, asked: Sequence[Recording | RecordingName]) -> list[Recording]:
        names: dict[RecordingName, int] = {}
        for item in asked:
            if isinstance(item, Recording):
                self._must_be_ours(item)
                continue
            _check_name(item)
            if item not in names:
                names[item] = self._resolve(item)
        known: dict[int, Recording] = {}
        if names:
            ids = sorted(set(names.values()))
            known = self._by_id(ids)
            for name, number in names.items():
                if number not in known:
                    raise ReadError(f"recording {shown(name)}: {self._why_absent(number)}")
        return [item if isinstance(item, Recording) else known[names[item]] for item in asked]

    def _by_id(self, ids: Sequence[int]) -> dict[int, Recording]:
        found = self.session.run(lambda connection: self.catalogue.by_id(connection, ids))
        return {number: Recording._of(item, self) for number, item in found.items()}

    def _why_absent(self, recording_id: int) -> str:
        if self._snapshot:
            self.require_snapshot()
            return f"not in the snapshot {self._snapshot.name!r}"
        row = self.session.run(lambda connection: connection.execute(_EXPIRED, (recording_id,)).fetchone())
        return f"its spectrograms have expired, the last one of {row[0]}" if row else "not in the store"


def _must_agree(spectrograms: Sequence[Spectrogram]) -> None:
    shapes = {(item.profile, item.sr, item.hop_length, item.n_mels) for item in spectrograms}
    if len(shapes) == 1:
        return
    profiles = sorted({profile for profile, *_ in shapes})
    if len(profiles) > 1:
        raise ReadError(f"the recordings have different profiles ({', '.join(profiles)}): name one that all have")
    rates = ", ".join(f"{sr} Hz" for sr in sorted({sr for _, sr, *_ in shapes}))
    raise ReadError(
        f"profile {profiles[0]} keeps each recording's own rate, and these have {rates}: their windows are of different shape"
    )


def _fixed_window(
    recording: Recording, spectrogram: Spectrogram, start_s: float, n_frames: int, *, is_filled: bool
) -> Window:
    first, _ = spectrogram.span(start_s, None, step_s=spectrogram.frame_s, n_rows=spectrogram.n_frames)
    if first + n_frames > spectrogram.n_frames and not is_filled:
        latest_s = (spectrogram.n_frames - n_frames) * spectrogram.frame_s
        when = f"such a window starts at {latest_s:.3f} s at the latest" if latest_s >= 0 else "it is shorter than that"
        raise ReadError(
            f"recording {recording.id} ({as_one_line(recording.url)}), window of {n_frames} frames from {start_s:g} s: "
            f"the recording lasts {spectrogram.duration_s:.3f} s; {when}; or give fill_db"
        )
    return Window(spectrogram, first, min(first + n_frames, spectrogram.n_frames))


def _as_uid(name: str | UUID) -> UUID | None:
    if isinstance(name, UUID):
        return name
    try:
        return UUID(name)
    except ValueError:
        return None


def _split(name: str) -> tuple[str | None, str]:
    if not name.startswith("s3://"):
        return None, name
    bucket, _, key = name.removeprefix("s3://").partition("/")
    return bucket, key


def _check_name(name: object) -> None:
    """A truth is an integer to Python, and the first recording's id; a path has a method that uuid would call."""
    if isinstance(name, bool) or not isinstance(name, int | np.integer | str | UUID):
        raise ReadError(f"recording {shown(name)}: must be an id, a uid, s3://bucket/key, or a key")
    if isinstance(name, str) and not is_storable_text(name):
        raise ReadError(f"recording {shown(name)}: not in the store: no key has NUL or lone surrogates")
