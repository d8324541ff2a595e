"""A new machine, for tests of copies."""

from __future__ import annotations

from pathlib import Path

from data.copies import recover
from data.copies_place import Place
from data.database import Database
from data.settings import Settings


def recovered(home: Path, place: Place) -> Database:
    """An empty workspace after its start: what was copied is there again."""
    settings = Settings(home=home)
    settings.home.mkdir(parents=True)
    assert recover(settings, place).bytes > 0
    return Database(settings)
