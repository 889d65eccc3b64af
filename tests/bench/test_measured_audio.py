"""What the bench measures is what it says."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from bench.corpus import MUSIC_FORMATS, plan_music
from bench.long_recording import SR, encode_minute, repeat_minute
from spectralize.decode import AudioDecoder


def test_every_second_of_music_is_planned_once_and_the_formats_share_it() -> None:
    durations = {f"{number}.ogg": 60.0 + 37.0 * (number % 7) for number in range(16)}
    pieces = plan_music(durations)
    assert len({piece.key for piece in pieces}) == len(pieces)
    covered = dict.fromkeys(durations, 0.0)
    shares = dict.fromkeys((*MUSIC_FORMATS, "ogg"), 0.0)
    for piece in pieces:
        length_s = piece.duration_s or durations[piece.source]
        covered[piece.source] += length_s
        shares[piece.key.rpartition(".")[2]] += length_s
    assert covered == pytest.approx(durations)
    share_s = sum(durations.values()) / len(shares)
    assert all(abs(length_s / share_s - 1) < 0.3 for length_s in shares.values()), shares


def test_a_repeated_minute_decodes_as_one_whole_recording(tmp_path: Path) -> None:
    original, path = tmp_path / "original.wav", tmp_path / "long.mp3"
    noise = np.random.default_rng(0).normal(0, 0.05, (121 * SR, 2))
    soundfile.write(original, noise, SR)
    repeat_minute(encode_minute(original), path, 3)
    with path.open("rb") as file, AudioDecoder(file, max_duration_s=1e6) as decoder:
        n_samples = sum(map(len, decoder))
        info = decoder.info
    assert info.defect is None
    assert (info.sr, info.channels) == (SR, 2)
    # The encoder's delay is cut off at the start.
    assert n_samples == pytest.approx(3 * 60 * SR, abs=2 * 1152)
    assert info.declared_duration_s == pytest.approx(180.0, abs=0.1)
