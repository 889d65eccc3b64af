"""Arrays as Plotly takes them without a list in between: base64 of their bytes, with type and shape."""

from __future__ import annotations

from base64 import b64encode
from typing import Any

import numpy as np
import numpy.typing as npt

#: A part of a figure as Plotly's JSON has it. Plotly's own classes check arrays value by value, which takes longer than
#: reading them from the database.
Part = dict[str, Any]

_NAMES = {"i1", "u1", "i2", "u2", "i4", "u4", "f4", "f8"}


def typed(values: npt.NDArray[Any]) -> Part:
    """Return an array of one or two dimensions as ``{"dtype", "bdata"}``, with ``"shape"`` if it has two.

    Raises
    ------
    ValueError
        If Plotly has no such type: it knows integers up to 32 bits, and floats of 32 and 64.
    """
    little = np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("<"))
    name = f"{little.dtype.kind}{little.dtype.itemsize}"
    if name not in _NAMES:
        raise ValueError(f"array of {values.dtype}: must be one of {', '.join(sorted(_NAMES))}")
    part: Part = {"dtype": name, "bdata": b64encode(little.tobytes()).decode()}
    return part if little.ndim == 1 else part | {"shape": ", ".join(map(str, little.shape))}
