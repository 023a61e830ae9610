"""The one form of an alarm, whichever check raises it and wherever it is shown."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Alarm:
    """Something that makes weights doubtful, and what to do about it."""

    name: str
    finding: str  # with the figures
    remedy: str = ""
