"""One Mel-spectrogram as a picture, drawn from what the database holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import librosa
import matplotlib as mpl
import psycopg

from spectralize.reader import read_mel

mpl.use("Agg")

from matplotlib import pyplot as plt

#: As much as fits a picture and can still be read.
_SECONDS = 30.0


def save_picture(connection: psycopg.Connection[Any], line: dict[str, Any], path: Path) -> None:
    """Draw the first seconds of a spectrogram, given as a line of the ledger."""
    window = read_mel(connection, line["spectrogram_id"], end_s=_SECONDS)
    row = connection.execute(
        "SELECT (parameters->>'fmin')::float, coalesce((parameters->>'fmax')::float, %s / 2.0) "
        "FROM spectralize.profiles WHERE name = %s",
        (window.sr, line["profile"]),
    ).fetchone()
    fmin, fmax = row or (0.0, window.sr / 2)
    n_mels = window.mel.shape[1]
    centres = librosa.mel_frequencies(n_mels=n_mels + 2, fmin=fmin, fmax=fmax)[1:-1]
    peak = window.mel.max()
    figure, axes = plt.subplots(figsize=(12, 4.5), layout="constrained")
    image = axes.imshow(
        window.mel.T, origin="lower", aspect="auto", cmap="magma", vmin=peak - 80, vmax=peak,
        extent=(0, len(window.mel) * window.hop_length / window.sr, -0.5, n_mels - 0.5),
    )  # fmt: skip
    bands = [int(abs(centres - hz).argmin()) for hz in (125, 250, 500, 1000, 2000, 4000, 8000) if fmin <= hz <= fmax]
    axes.set_yticks(bands, [f"{centres[band]:.0f}" for band in bands])
    axes.set_xlabel("seconds")
    axes.set_ylabel("Hz (Mel bands)")
    # A key is hostile text: $ would start a formula.
    axes.set_title(f"{line['key']}  ·  {line['profile']}".replace("$", r"\$"))
    figure.colorbar(image, label="dB relative to 1.0")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
