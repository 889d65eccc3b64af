"""Mel profiles: named, immutable parameter sets, checked before anything runs."""

import hashlib
import json
import tomllib
from functools import cached_property
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from spectralize.errors import ConfigError
from spectralize.resources import resource_folder

PadMode = Literal["constant", "edge", "linear_ramp", "reflect", "symmetric"]


class MelProfile(BaseModel):
    """Parameters of one Mel-spectrogram, named as librosa names them.

    A stored profile never changes: a changed number is a new name.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    #: Sample rate in Hz that recordings are resampled to; "native" keeps each recording's own.
    sr: Annotated[int, Field(ge=1_000, le=1_000_000)] | Literal["native"]
    n_fft: Annotated[int, Field(ge=16, le=1 << 17)]
    hop_length: Annotated[int, Field(ge=1, le=1 << 17)]
    win_length: Annotated[int, Field(ge=1, le=1 << 17)]
    window: Literal["hann", "hamming", "blackman", "bartlett", "boxcar"] = "hann"
    center: bool = True
    pad_mode: PadMode = "constant"
    n_mels: Annotated[int, Field(ge=1, le=1_024)]
    #: Lowest and highest frequency of the filterbank in Hz; no fmax means sr / 2.
    fmin: Annotated[float, Field(ge=0, strict=False)] = 0.0
    fmax: Annotated[float, Field(gt=0, strict=False)] | None = None
    htk: bool = False
    norm: Literal["slaney", "none"] = "slaney"
    #: Exponent of the magnitude: 2 is power, 1 is amplitude.
    power: Annotated[float, Field(gt=0, le=4, strict=False)] = 2.0
    #: Floor before the logarithm; with 1e-10 silence is -100 dB.
    amin: Annotated[float, Field(gt=0, lt=1, strict=False)] = 1e-10
    #: off: no waveform_frames; envelope: min, max, rms per hop; pcm: the hop's int16 samples too.
    waveform: Literal["off", "envelope", "pcm"] = "envelope"

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if self.win_length > self.n_fft:
            raise ValueError(f"win_length = {self.win_length}: must be at most n_fft ({self.n_fft})")
        if self.fmax is not None and self.fmax <= self.fmin:
            raise ValueError(f"fmax = {self.fmax}: must be above fmin ({self.fmin})")
        if self.sr != "native" and self.fmax is not None and self.fmax > self.sr / 2:
            raise ValueError(f"fmax = {self.fmax}: must be at most sr / 2 ({self.sr / 2:g})")
        return self

    @property
    def parameters(self) -> dict[str, object]:
        """Everything but the name."""
        return self.model_dump(exclude={"name"})

    @cached_property
    def fingerprint(self) -> str:
        """sha256 of the parameters as canonical JSON: equal parameters, equal fingerprint."""
        canonical = json.dumps(self.parameters, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


def one_line(error: ValidationError) -> str:
    """Turn pydantic's report into `parameter = value: expectation; …`."""
    parts = []
    for item in error.errors():
        message = item["msg"].removeprefix("Value error, ")
        where = ".".join(str(part) for part in item["loc"])
        if not where:
            parts.append(message)
        elif item["type"] == "extra_forbidden":
            parts.append(f"{where}: there is no such key")
        elif item["type"] == "missing":
            parts.append(f"{where}: {message[0].lower()}{message[1:]}")
        else:
            parts.append(f"{where} = {item['input']!r}: {message[0].lower()}{message[1:]}")
    return "; ".join(parts)


def parse_profile(name: str, table: dict[str, object]) -> MelProfile:
    """Check one table of `mel_profiles.toml`."""
    try:
        return MelProfile.model_validate({**table, "name": name})
    except ValidationError as error:
        raise ConfigError(f"mel_profiles.toml, profile {name!r}: {one_line(error)}") from error


def load_profiles() -> dict[str, MelProfile]:
    """Read every profile of the configuration, by name."""
    path = resource_folder("config") / "mel_profiles.toml"
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"mel_profiles.toml: {error}") from error
    return {name: parse_profile(name, table) for name, table in tables.items()}


def find_profile(name: str) -> MelProfile:
    """Return the profile of that name, or say which there are."""
    profiles = load_profiles()
    if name not in profiles:
        raise ConfigError(f"profile {name!r}: not in mel_profiles.toml, which has {', '.join(sorted(profiles))}")
    return profiles[name]
