"""One Mel-spectrogram as a picture, drawn from what the database holds."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl

from spectralize.reader import Recording

mpl.use("Agg")

from matplotlib import pyplot as plt

#: As much as fits a picture and can still be read.
_SECONDS = 30.0


def save_picture(recording: Recording, profile: str, path: Path) -> None:
    """Draw the first seconds of a recording."""
    end_s = min(_SECONDS, recording.spectrogram(profile).duration_s)
    mel = recording.mel(0.0, end_s, profile, top_db=80.0)
    centres = mel["frequency_hz"].values
    figure, axes = plt.subplots(figsize=(12, 4.5), layout="constrained")
    image = axes.imshow(
        mel.values.T, origin="lower", aspect="auto", cmap="magma", extent=(0, end_s, -0.5, len(centres) - 0.5)
    )
    ticks = [hz for hz in (125, 250, 500, 1000, 2000, 4000, 8000) if centres[0] <= hz <= centres[-1]]
    bands = [int(abs(centres - hz).argmin()) for hz in ticks]
    axes.set_yticks(bands, [f"{centres[band]:.0f}" for band in bands])
    axes.set_xlabel("seconds")
    axes.set_ylabel("Hz (Mel bands)")
    # A key is hostile text: $ would start a formula.
    axes.set_title(f"{recording.key}  ·  {profile}".replace("$", r"\$"))
    figure.colorbar(image, label="dB relative to 1.0")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)
    plt.close(figure)
