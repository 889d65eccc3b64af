"""Where `sql/` and `config/` are: beside the modules in a wheel or zip, at the top of a checkout."""

import os
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path


def resource_folder(name: str) -> Traversable:
    """Return the folder `sql` or `config` that belongs to this installation.

    `config` can be replaced as a whole by the folder that ``SPECTRALIZE_CONFIG`` names.
    """
    override = os.environ.get("SPECTRALIZE_CONFIG")
    if name == "config" and override:
        return Path(override)
    packaged = files("spectralize") / name
    if packaged.is_dir():
        return packaged
    return Path(__file__).resolve().parents[2] / name
