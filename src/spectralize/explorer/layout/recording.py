"""The page of a recording: the viewer, the player, what to take away, and what is known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dash_mantine_components as dmc
from dash import html
from dash.development.base_component import Component

from spectralize.errors import as_one_line
from spectralize.explorer.layout.parts import (
    Column,
    badge,
    bytes_text,
    count_text,
    disclosure,
    duration_text,
    facts_table,
    heading,
    link,
    moment,
    number_text,
    plain,
    rows_table,
    section,
    time_text,
)
from spectralize.explorer.layout.viewer import make_keys
from spectralize.explorer.media import choose_stream
from spectralize.explorer.visits import write_query
from spectralize.reader import Recording, Spectrogram

#: Longer ones are cut where they name a page; the facts have them whole.
_LONGEST_TITLE = 120


def make_page(
    recording: Recording,
    profile: Spectrogram | None,
    viewer: Component | None,
    spectrograms: Sequence[Mapping[str, Any]],
    history: Sequence[Mapping[str, Any]],
) -> Component:
    """Return the page; `profile` and `viewer` are None for an object that became no recording."""
    parts: list[Component] = [
        heading(name_of(recording), badge(recording.outcome)),
        dmc.Text(plain(recording.url), size="sm", style={"overflowWrap": "anywhere"}),
        *_reasons(recording),
    ]
    if profile is not None and viewer is not None:
        parts += [
            _profiles(recording, profile),
            viewer,
            _player(recording),
            _take_away(recording, profile),
            make_keys(),
        ]
    parts.append(
        dmc.SimpleGrid(
            [
                html.Div([_tags(recording), _sound(recording, profile)]),
                _provenance(recording, profile),
            ],
            cols={"base": 1, "md": 2},
            spacing="xl",
        )
    )
    parts += [_computed(spectrograms), _history(history)]
    return html.Div(parts)


def name_of(recording: Recording) -> str:
    """Return what people call it: artist and title, or the end of its key."""
    title = recording.tags.get("title")
    artist = recording.tags.get("artist")
    words = [as_one_line(_first(word)) for word in (artist, title) if word]
    name = " – ".join(words) if title else recording.key.rsplit("/", 1)[-1] or recording.key
    return plain(name, longest=_LONGEST_TITLE)


def _first(value: Any) -> str:
    return str(value[0] if isinstance(value, list) else value)


def _reasons(recording: Recording) -> list[Component]:
    """Say what was refused, and what a partial spectrogram lacks."""
    lines = [
        (name, outcome, f"{reason_class}: {reason}")
        for name, (outcome, reason_class, reason) in recording.refusals.items()
    ]
    lines += [
        (name, "partial", found.reason or "incomplete")
        for name, found in recording.spectrograms.items()
        if found.status == "partial"
    ]
    return [
        dmc.Alert(
            dmc.Group(
                [badge(outcome), dmc.Text(f"{plain(name)}: {plain(reason)}", size="sm", flex=1, miw=200)], gap="sm"
            ),
            color="yellow" if outcome == "partial" else "orange" if outcome == "rejected" else "red",
            variant="light",
            my="xs",
            p="xs",
            className="reason",
        )
        for name, outcome, reason in lines
    ]


def _profiles(recording: Recording, shown: Spectrogram) -> Component:
    names = list(recording.spectrograms)
    several = write_query({"r": [f"{recording.id}:{name}" for name in names]})
    return dmc.Group(
        [
            dmc.Select(
                id="recording-profile", label="Profile", data=names, value=shown.profile, allowDeselect=False, size="xs", w=180
            ),
            link("Compare profiles" if len(names) > 1 else "Compare", f"/compare{several}"),
        ],
        align="end",
        mt="sm",
        mb="xs",
    )  # fmt: skip


def _player(recording: Recording) -> Component:
    path = f"/recordings/{recording.id}/audio"
    stream = path if choose_stream(recording) == "object" else f"{path}?as=wav"
    audio = html.Audio(
        id="recording-audio", controls=True, preload="metadata", src=stream, className="player",
        **{"aria-label": f"Listen to {name_of(recording)}", "data-fallback": f"{path}?as=wav"},
    )  # fmt: skip
    return dmc.Group(
        [
            audio,
            dmc.Switch(id="viewer-loop", label="Loop the window", size="sm"),
            html.Span("", id="recording-audio-error", role="alert"),
        ],
        mt="xs",
        gap="md",
    )


def _take_away(recording: Recording, shown: Spectrogram) -> Component:
    base = f"/recordings/{recording.id}/window"
    # viewer.js keeps the addresses at the window that is seen.
    links = [
        html.A(
            text, id=f"recording-{kind}", href=f"{base}.{kind}", className="download", download=True,
            **{"data-base": f"{base}.{kind}", "data-profile": shown.profile},
        )
        for kind, text in (("wav", "Sound (wav)"), ("npy", "Mel frames (npy)"), ("png", "Picture (png)"))
    ]  # fmt: skip
    return dmc.Stack(
        [
            dmc.Group([dmc.Text("Take this window away:", size="sm"), *links], gap="md"),
            disclosure(
                "Python that reads it",
                dmc.Group(
                    [
                        html.Pre(
                            "", id="recording-code", className="code", tabIndex=0,
                            **{"data-uid": recording.uid, "data-profile": shown.profile, "aria-label": "Python code"},
                        ),
                        dmc.Button("Copy", id="recording-copy", variant="default", size="compact-sm"),
                    ],
                    align="start",
                ),
            ),
        ],
        gap="xs",
        my="sm",
    )  # fmt: skip


def _tags(recording: Recording) -> Component:
    facts = [(plain(name, longest=60), plain(_tag_text(value), longest=2000)) for name, value in recording.tags.items()]
    content = facts_table(facts, label="Tags") if facts else dmc.Text("The file has none.", size="sm")
    return section("Tags", content)


def _tag_text(value: Any) -> str:
    return "; ".join(map(str, value)) if isinstance(value, list) else str(value)


def _sound(recording: Recording, shown: Spectrogram | None) -> Component:
    def pair(name: str, text: Any) -> Sequence[str]:
        declared, decoded = (getattr(recording, f"{how}_{name}") for how in ("declared", "decoded"))
        return text(declared), text(decoded)

    rows = [
        ("Duration", *pair("duration_s", duration_text)),
        ("Sample rate", *pair("samplerate_hz", lambda rate: number_text(rate, 6, "Hz"))),
        ("Channels", *pair("channels", count_text)),
        ("Codec", *pair("codec", plain)),
    ]
    columns = [Column(""), Column("The file declares"), Column("Decoding found")]
    facts = [("Container", plain(recording.container)), ("Size", bytes_text(recording.size_bytes))]
    if shown is not None:
        facts.append(("Highest level", f"{shown.peak_db:.1f} dB"))
    return section(
        "Declared and decoded",
        rows_table(columns, rows, label="What the file declares and what decoding found", min_width_px=300),
        facts_table(facts, label="File"),
    )


def _provenance(recording: Recording, shown: Spectrogram | None) -> Component:
    facts: list[tuple[str, Any]] = [
        ("Recording", str(recording.id)),
        ("uid", recording.uid),
        ("Object", plain(recording.url)),
        ("ETag", plain(recording.etag)),
        ("SHA-256", plain(recording.sha256)),
        ("Last modified", moment(recording.last_modified)),
    ]
    if recording.tombstoned_at:
        facts.append(("Gone from the bucket", moment(recording.tombstoned_at)))
    if shown is not None:
        parameters = ", ".join(f"{name} {value}" for name, value in shown.parameters.items() if value is not None)
        flag = f" ({shown.recorded_at_flag})" if shown.recorded_at_flag else ""
        facts += [
            (
                "Recorded",
                [moment(shown.recorded_at), f", from {shown.recorded_at_origin}{plain(flag) if flag else ''}"],
            ),
            ("Profile", f"{plain(shown.profile)}: {plain(parameters)}"),
            ("Batch", link(f"{shown.batch_id}", f"/batches/{shown.batch_id}")),
            ("Computed", [moment(shown.loaded_at), f" by core {shown.core_version}"]),
        ]
    return section("Where it comes from", facts_table(facts, label="Provenance"))


def _computed(rows: Sequence[Mapping[str, Any]]) -> Component:
    if not rows:
        return html.Div()
    columns = [
        Column("Profile"), Column("State"), Column("Frames", is_number=True), Column("Bands", is_number=True),
        Column("Peak, dB", is_number=True), Column("Generation", is_number=True), Column("Batch", is_number=True),
        Column("Recorded (UTC)"), Column("Core"), Column("Snapshots"),
    ]  # fmt: skip
    lines = [
        (
            plain(row["profile"]),
            f"{row['status']}{', current' if row['is_current'] else ''}"
            + (f" ({plain(row['expired_because'])})" if row["status"] == "expired" else ""),
            count_text(row["n_frames"]), str(row["n_mels"]), f"{row['peak_db']:.1f}", str(row["generation"]),
            link(str(row["batch_id"]), f"/batches/{row['batch_id']}"), time_text(row["recorded_at"]), plain(row["core_version"]),
            plain(", ".join(row["snapshots"])),
        )
        for row in rows
    ]  # fmt: skip
    return section("Spectrograms", rows_table(columns, lines, label="Spectrograms of this object", min_width_px=800))


def _history(rows: Sequence[Mapping[str, Any]]) -> Component:
    columns = [
        Column("Batch", is_number=True), Column("Profile"), Column("Outcome"), Column("Attempts", is_number=True),
        Column("Ended (UTC)"), Column("Run"), Column("Reason", width="20rem"),
    ]  # fmt: skip
    lines = [
        (
            link(str(row["batch_id"]), f"/batches/{row['batch_id']}"), plain(row["profile"]), badge(row["outcome"]),
            str(row["attempts"]), time_text(row["ended_at"]), plain(f"{row['dag_id']} {row['run_id']}"), plain(row["reason"]),
        )
        for row in rows
    ]  # fmt: skip
    return section(
        "In the ledger", rows_table(columns, lines, label="What batches did with this object", min_width_px=800)
    )
