"""Prefixes that hold a date: which part is fixed, which prefix a day has, and what date a key below it tells."""

import re
from dataclasses import dataclass
from datetime import date

#: Directives of strftime that a prefix may hold: the group each becomes in a key's pattern, and its digits.
_DIRECTIVES = {"Y": ("year", 4), "m": ("month", 2), "d": ("day", 2), "H": ("hour", 2)}


@dataclass(frozen=True, slots=True)
class PrefixTemplate:
    """A prefix such as `field/%Y/%m/%d/`, taken apart.

    Attributes
    ----------
    root
        What comes before the first directive: every key of the source begins with it.
    pattern
        Regular expression that a key must begin with, groups year, month, day, hour; None if the prefix has no directive.
    """

    template: str
    root: str
    pattern: str | None

    @classmethod
    def parse(cls, template: str) -> "PrefixTemplate":
        """Take a prefix apart.

        Raises
        ------
        ValueError
            If it holds a directive other than %Y, %m, %d, %H, or %% for a percent sign.
        """
        root, pattern, seen = "", "", set[str]()
        for percent, plain in re.findall(r"%(.?)|([^%]+)", template, flags=re.DOTALL):
            text = "%" if percent == "%" else plain
            if text:
                root += "" if seen else text
                pattern += re.escape(text)
                continue
            if percent not in _DIRECTIVES:
                raise ValueError(
                    f"prefix = {template!r}: %{percent} is no part of a date: there are %Y, %m, %d, %H, and %% for a percent sign"
                )
            group, digits = _DIRECTIVES[percent]
            # The same part twice, as in %Y/%Y%m%d/, must tell the same.
            pattern += f"(?P={group})" if group in seen else f"(?P<{group}>\\d{{{digits}}})"
            seen.add(group)
        return cls(template, root, rf"\A{pattern}" if seen else None)

    @property
    def has_day(self) -> bool:
        """Tell whether a key's date can be read from it."""
        return self.pattern is not None and all(f"(?P<{group}>" in self.pattern for group in ("year", "month", "day"))

    def matches(self, key: str) -> bool:
        """Tell whether a key lies below the prefix, whatever its date."""
        return key.startswith(self.root) if self.pattern is None else re.match(self.pattern, key) is not None

    def on(self, day: date) -> str:
        """Return the literal prefix of a day; it ends before the hour, so that one prefix covers the whole day."""
        literal = ""
        for percent, plain in re.findall(r"%(.?)|([^%]+)", self.template, flags=re.DOTALL):
            if percent == "H":
                break
            literal += plain or ("%" if percent == "%" else day.strftime(f"%{percent}"))
        return literal
