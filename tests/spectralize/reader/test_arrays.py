"""The reader's arrays against librosa's, for every profile."""

import io
import json
import math
from datetime import UTC, datetime, timedelta

import librosa
import numpy as np
import pytest
import xarray as xr

from spectralize import __version__
from spectralize.melscale import band_centres_hz, hz_to_mel, mel_to_hz
from spectralize.profiles import find_profile, load_profiles
from spectralize.reader import Recording
from spectralize.reader import Store as Reader
from spectralize.resample import resample_audio
from tests.reference import assert_equals_librosa, decode, half_precision_step_db
from tests.spectralize.reader.conftest import OBJECTS
from tests.store import Store

SOUND = ["field/2021/03/04/dawn.flac", "field/2021/03/05/dusk.ogg", "music/sub/tone.wav"]


def samples_of(key: str, profile_name: str) -> tuple[np.ndarray, int]:
    """The samples that a profile's features are of, and their rate."""
    profile = find_profile(profile_name)
    audio = decode(OBJECTS[key])
    sr = audio.sr if profile.sr == "native" else profile.sr
    return resample_audio(audio.y, audio.sr, sr), sr


@pytest.mark.parametrize("key", SOUND)
@pytest.mark.parametrize("profile", load_profiles())
def test_a_whole_recording_equals_librosa(reader: Reader, key: str, profile: str) -> None:
    y, sr = samples_of(key, profile)
    mel = reader.recording(key).mel(profile=profile)
    assert mel.dims == ("time_s", "frequency_hz")
    assert mel.dtype == np.float32
    assert_equals_librosa(mel.values, y, sr, find_profile(profile), is_half=True)
    np.testing.assert_allclose(
        mel["time_s"],
        librosa.frames_to_time(np.arange(len(mel)), sr=sr, hop_length=find_profile(profile).hop_length),
    )
    parameters = find_profile(profile)
    np.testing.assert_allclose(
        mel["frequency_hz"],
        librosa.mel_frequencies(
            parameters.n_mels + 2, fmin=parameters.fmin, fmax=parameters.fmax or sr / 2, htk=parameters.htk
        )[1:-1],
        rtol=1e-9,
    )


@pytest.mark.parametrize("htk", [False, True])
def test_the_mel_scale_is_librosas(htk: bool) -> None:
    hz = np.concatenate(([0.0, 1000.0], np.geomspace(1.0, 200_000.0, 200)))
    np.testing.assert_allclose(hz_to_mel(hz, htk=htk), librosa.hz_to_mel(hz, htk=htk), rtol=1e-12)
    np.testing.assert_allclose(mel_to_hz(hz_to_mel(hz, htk=htk), htk=htk), hz, rtol=1e-9, atol=1e-9)
    assert band_centres_hz({"fmin": 0.0, "fmax": None, "htk": htk, "n_mels": 3}, 16_000)[-1] < 8_000


@pytest.mark.parametrize("profile", load_profiles())
def test_a_window_is_a_slice_of_the_whole(reader: Reader, profile: str) -> None:
    recording = reader.recording(SOUND[1])
    whole = recording.mel(profile=profile)
    step = recording.spectrogram(profile).frame_s
    for start, end in ((0.0, 1.0), (3.217, 5.001), (7 * step, 9 * step), (11.9, 12.0), (2.5, None), (None, 2.5)):
        window = recording.mel(start, end, profile)
        times = whole["time_s"].values
        is_inside = (times >= (start or 0.0) - step * 1e-6) & (times < (math.inf if end is None else end) - step * 1e-6)
        xr.testing.assert_identical(window, whole[is_inside])


@pytest.mark.parametrize(
    ("ref", "top_db"), [(1.0, None), ("max", None), ("max", 80.0), (1.0, 60.0), (0.01, 30.0), (1e-30, None)]
)
def test_reference_and_top_db_are_power_to_dbs(reader: Reader, ref: "float | str", top_db: float | None) -> None:
    profile = find_profile("mel128_22k")
    audio = decode(OBJECTS[SOUND[0]])
    S = librosa.feature.melspectrogram(
        y=resample_audio(audio.y, audio.sr, 22_050), sr=22_050, n_fft=2048, hop_length=512, n_mels=128, fmin=0, fmax=11_025,
        pad_mode=profile.pad_mode,
    )  # fmt: skip
    expected = librosa.power_to_db(S, ref=np.max if ref == "max" else ref, top_db=top_db, amin=profile.amin).T
    plain = librosa.power_to_db(S, ref=1.0, top_db=None, amin=profile.amin).T
    mel = reader.recording(SOUND[0]).mel(profile="mel128_22k", ref=ref, top_db=top_db)  # type: ignore[arg-type]
    # Stored in half precision before it is shifted.
    bound = half_precision_step_db(plain) + 0.01
    near = plain >= plain.max(axis=1, keepdims=True) - 100
    assert (np.abs(mel.values - expected) <= bound)[near].all()
    assert mel.attrs["ref"] == ref
    assert mel.attrs.get("top_db") == top_db
    # The maximum is that of the recording, so that windows compare.
    np.testing.assert_array_equal(
        reader.recording(SOUND[0]).mel(6.0, 7.0, "mel128_22k", ref=ref, top_db=top_db).values,  # type: ignore[arg-type]
        mel.sel(time_s=slice(6.0, 6.9999)).values,
    )


def test_coordinates_and_provenance(reader: Reader, filled: Store) -> None:
    key = SOUND[0]
    recording = reader.recording(f"s3://{filled.source.bucket}/{key}")
    mel = recording.mel(2.0, 4.0, "mel128_22k")
    # The day is in the key.
    assert recording.recorded_at == datetime(2021, 3, 4, tzinfo=UTC)
    first = math.ceil(2.0 * 22_050 / 512)
    at = datetime(2021, 3, 4, tzinfo=UTC) + timedelta(microseconds=round(first * 512 / 22_050 * 1e6))
    assert mel["time_at"].values[0] == np.datetime64(at.replace(tzinfo=None), "ns")
    assert mel["time_s"].attrs["units"] == "s"
    assert mel["frequency_hz"].attrs["units"] == "Hz"
    [(batch_id,)] = filled.rows("SELECT max(batch_id) FROM spectralize.batches")
    attributes = mel.attrs
    assert attributes["object"] == f"s3://{filled.source.bucket}/{key}"
    assert attributes["batch"] == batch_id
    assert attributes["core_version"] == __version__
    assert attributes["profile_fingerprint"] == find_profile("mel128_22k").fingerprint
    assert json.loads(attributes["profile_parameters"])["n_mels"] == 128
    assert json.loads(attributes["library_versions"])["numpy"]
    assert attributes["sha256"] == __import__("hashlib").sha256(OBJECTS[key]).hexdigest()
    assert attributes["recorded_at_origin"] == "key"
    # What xarray writes must take it.
    assert mel.to_dict()["attrs"] == attributes
    assert all(isinstance(value, str | int | float) for value in attributes.values())


def test_an_array_is_what_xarray_itself_makes_of_its_parts(reader: Reader) -> None:
    mel = reader.recording(SOUND[0]).mel(1.0, 2.0, "mel128_22k")
    parts = {name: (axis.dims, axis.values, axis.attrs) for name, axis in mel.coords.items()}
    made = xr.DataArray(mel.values, dims=mel.dims, coords=parts, name="mel", attrs=mel.attrs)
    xr.testing.assert_identical(mel, made)
    assert {name: index.tolist() for name, index in mel.indexes.items()} == {
        name: index.tolist() for name, index in made.indexes.items()
    }
    # It behaves, and what is done to it stays with it.
    xr.testing.assert_identical(
        mel.sel(frequency_hz=1000, method="nearest"), made.sel(frequency_hz=1000, method="nearest")
    )
    xr.testing.assert_identical(mel.mean("time_s"), made.mean("time_s"))
    mel["frequency_hz"].attrs["mine"] = mel["time_s"].attrs["mine"] = mel.attrs["mine"] = 1
    xr.testing.assert_identical(reader.recording(SOUND[0]).mel(1.0, 2.0, "mel128_22k"), made)


def test_waveform_pcm_and_seconds(reader: Reader) -> None:
    recording = reader.recording(SOUND[2])
    y = decode(OBJECTS[SOUND[2]]).y
    wave = recording.waveform(profile="seed2020_pcm")
    hops = [y[start : start + 512] for start in range(0, len(y), 512)]
    np.testing.assert_array_equal(wave["max"], [hop.max() for hop in hops])
    np.testing.assert_array_equal(wave["min"], [hop.min() for hop in hops])
    np.testing.assert_allclose(wave["rms"], [np.sqrt(np.mean(hop.astype(float) ** 2)) for hop in hops], rtol=1e-5)
    pcm = recording.pcm(profile="seed2020_pcm")
    np.testing.assert_array_equal(pcm, np.clip(np.rint(y * 32768), -32768, 32767).astype(np.int16))
    part = recording.pcm(1.0, 2.0, "seed2020_pcm")
    np.testing.assert_array_equal(part, pcm.sel(time_s=slice(part["time_s"][0], part["time_s"][-1])))
    seconds = recording.seconds(profile="mel128_22k")
    mel = recording.mel(profile="mel128_22k")
    for second in range(3):
        frames = mel.sel(time_s=slice(second, second + 0.999999)).values
        assert seconds["n_frames"].values[second] == len(frames)
        np.testing.assert_allclose(seconds["mel_mean"].values[second], frames.mean(axis=0), atol=0.05)
        np.testing.assert_allclose(seconds["mel_std"].values[second], frames.std(axis=0), atol=0.05)
    assert seconds["mel_mean"].dims == ("time_s", "frequency_hz")
    assert seconds["peak"].values[0] == pytest.approx(np.abs(y[:22_050]).max())
    assert len(recording.seconds(1.0, 2.0, "mel128_22k")["time_s"]) == 1


def test_windows_of_many_recordings_are_those_of_each(reader: Reader) -> None:
    recordings = [reader.recording(key) for key in SOUND]
    rng = np.random.default_rng(0)
    chosen = [recordings[number] for number in rng.integers(0, len(recordings), 150)]
    starts = [float(rng.uniform(0, (recording.duration_s or 0) - 0.55)) for recording in chosen]
    windows = reader.mel_windows(chosen, starts, 0.5, "speech80_16k")
    assert windows.shape == (150, 50, 80)
    assert windows.dims == ("window", "time_s", "frequency_hz")
    for number in range(0, 150, 10):
        one = chosen[number].mel(starts[number], starts[number] + 0.53, "speech80_16k")[:50]
        np.testing.assert_array_equal(windows[number], one)
        assert windows["start_s"].values[number] == one["time_s"].values[0]
        assert windows["start_at"].values[number] == one["time_at"].values[0]
        assert windows["recording"].values[number] == chosen[number].id
    # By id, as a data loader keeps them, and relative to each recording's own peak.
    ids = np.array([recording.id for recording in chosen])
    relative = reader.mel_windows(ids, np.array(starts), 0.5, "speech80_16k", ref="max", top_db=40)
    assert relative.values.max() <= 0.03
    assert relative.values.min() == pytest.approx(-40.0)
    np.testing.assert_allclose(
        relative[7], chosen[7].mel(starts[7], starts[7] + 0.53, "speech80_16k", ref="max", top_db=40)[:50], atol=1e-5
    )


def test_windows_beyond_the_end_are_filled_only_if_asked_for(reader: Reader) -> None:
    short, longer = reader.recording("music/short.wav"), reader.recording(SOUND[2])
    filled = reader.mel_windows([short, longer], [0.1, 1.0], 1.0, "mel128_22k", fill_db=-100.0)
    n_there = len(short.mel(0.1, profile="mel128_22k"))
    np.testing.assert_array_equal(filled[0, :n_there], short.mel(0.1, profile="mel128_22k"))
    assert (filled.values[0, n_there:] == -100.0).all()
    np.testing.assert_array_equal(filled[1], longer.mel(1.0, 2.1, "mel128_22k")[:43])


def test_an_array_survives_a_file(reader: Reader) -> None:
    mel = reader.recording(SOUND[2]).mel(0, 1, "mel128_22k", ref="max", top_db=80)
    # netCDF needs a library that is not ours to ask for; its rules on attributes are in the test above.
    buffer = io.BytesIO()
    np.savez(buffer, mel=mel.values, **{name: np.asarray(value) for name, value in mel.attrs.items()})
    buffer.seek(0)
    assert str(np.load(buffer)["object"]) == mel.attrs["object"]


def test_a_recording_shows_what_it_is(reader: Reader) -> None:
    recording = reader.recording(SOUND[2])
    assert isinstance(recording, Recording)
    assert repr(recording) == (
        f"<Recording {recording.id} {recording.url}: loaded, 3.00 s; "
        "bioacoustic96_256k, mel128_22k, seed2020, seed2020_pcm, speech80_16k>"
    )
    assert "topsecret" not in repr(reader)
