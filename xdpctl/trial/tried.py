"""What came of trying a change on packets, beside what the change would be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..change.report import Report

if TYPE_CHECKING:
    from .fates import Trial


@dataclass(kw_only=True)
class Tried(Report):
    """The report of a change that was planned and not made, and what its chain does."""

    trial: Trial

    @classmethod
    def of(cls, report: Report, trial: Trial) -> Tried:
        return cls(**vars(report), trial=trial)
