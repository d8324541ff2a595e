"""Who is signed in: a signed cookie, checked against the accounts at every request.

The cookie holds the annotator's id and the time of signing, signed with the workspace's own key, so it survives restarts and
nothing has to be stored. It is good for 14 days from its last renewal, and for no moment longer than its account allows:
disabled, or signed before the account's `sessions_from`, it opens nothing. `HttpOnly`, `SameSite=Lax`, and `Secure` on https.
Cookies do not know ports, so the name tells two studios on one machine apart.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from itsdangerous import BadData, URLSafeSerializer

from data import secret_key
from data.database import Database
from data.directory import Directory, Known
from data.records import Account
from data.settings import Settings

LIFETIME = timedelta(days=14)
RENEW_AFTER = timedelta(days=1)
NEW_PASSWORD_LIFETIME = timedelta(days=1)


class Session(NamedTuple):
    known: Known
    signed_at: datetime

    @property
    def is_due(self) -> bool:
        """Whether it is time to sign it anew."""
        return datetime.now(UTC) - self.signed_at > RENEW_AFTER


class Sessions:
    """Safe from any thread."""

    def __init__(self, settings: Settings, db: Database) -> None:
        key = secret_key.read_or_make(settings)
        self.key = key
        self.directory = Directory(db)
        self.cookie_name = "studio_session_" + hashlib.sha256(b"name\0" + key).hexdigest()[:8]
        self._cookies = URLSafeSerializer(key, salt="session", signer_kwargs={"digest_method": hashlib.sha256})
        self._links = URLSafeSerializer(key, salt="new password", signer_kwargs={"digest_method": hashlib.sha256})

    # --- the cookie ---

    def of(self, cookies: Mapping[str, str]) -> Session | None:
        """The session these cookies open, None when they open none."""
        read = _read(self._cookies, cookies.get(self.cookie_name, ""), LIFETIME)
        if read is None:
            return None
        annotator_id, signed_at = read
        known = self.directory.find(annotator_id)
        if known is None or signed_at < known.account.sessions_from:
            return None
        return Session(known, signed_at)

    def cookie(self, annotator_id: str, https: bool, signed_at: int = 0) -> str:
        """The value of a Set-Cookie header that signs this person in. `signed_at`: the `moment` before it was looked whether they
        may; what ends their sessions meanwhile then ends this one, too."""
        return self._header(str(self._cookies.dumps([annotator_id, signed_at or moment()])), int(LIFETIME.total_seconds()), https)

    def no_cookie(self, https: bool) -> str:
        """The value of a Set-Cookie header that signs out."""
        return self._header("", 0, https)

    def _header(self, value: str, seconds: int, https: bool) -> str:
        return f"{self.cookie_name}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{'; Secure' if https else ''}"

    # --- the link for a new password ---

    def new_password_token(self, account: Account) -> str:
        """For a link with which this person chooses a new password; good for a day, and once: choosing ends earlier sessions."""
        return str(self._links.dumps([account.annotator_id, moment()]))

    def whose_new_password(self, token: str) -> Known | None:
        read = _read(self._links, token, NEW_PASSWORD_LIFETIME)
        known = self.directory.find(read[0]) if read else None
        return known if read and known and read[1] >= known.account.sessions_from else None


def is_https(scope: Mapping[str, Any]) -> bool:
    """Whether the browser sees https: the scheme is what a named proxy says, and nobody else's word (`studio/proxy.py`)."""
    return scope.get("scheme") == "https"


def moment() -> int:
    """Now, in microseconds: as exact as the times in the database, since a cookie signed in the second of a new password must not
    outlive it."""
    return time.time_ns() // 1000


def _read(signer: URLSafeSerializer, text: str, lifetime: timedelta) -> tuple[str, datetime] | None:
    """(annotator's id, signed at), None for what was not signed here or too long ago."""
    try:
        annotator_id, at = signer.loads(text)
        signed_at = datetime.fromtimestamp(at / 1_000_000, UTC)
    except (BadData, ValueError, TypeError, OverflowError):
        return None
    return (annotator_id, signed_at) if datetime.now(UTC) - signed_at <= lifetime else None
