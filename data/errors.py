"""Errors whose message is written for the person at the screen.

The domain raises one of these; a page shows `str(error)` as it is. A message is one sentence (two at most) that says what is wrong
and what to do about it, and never holds a secret or a traceback.
"""


class StudioError(Exception):
    """Something the user can act on."""


class BadInput(StudioError):
    """A file, field or value that cannot be used; nothing was stored."""


class NotFound(StudioError):
    """The named project, model, run or row does not exist (or is not yours to see)."""


class WorkspaceError(StudioError):
    """The workspace folder cannot be used: locked by another app, full, read-only or damaged."""


class EngineError(StudioError):
    """A model or endpoint could not answer."""


class RunError(StudioError):
    """A run cannot start or has failed, in words."""


class LimitReached(StudioError):
    """A visitor's limit; says what the limit is."""


class NotAllowed(StudioError):
    """The person is not signed in, or their role does not go that far."""
