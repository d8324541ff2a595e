"""A small OpenID provider on a real port: discovery, codes with PKCE, signed id tokens. It plays Hugging Face's part in tests."""

from __future__ import annotations

import base64
import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qs, urlencode

from asgi_server import bound, port_of, serving
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

CLIENT, SECRET = "the-studio", "the-secret-of-the-studio"


class Provider:
    """`who` is the person whose browser comes by; `faults` are what it does wrong on purpose."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.who = {"sub": "1", "preferred_username": "ada"}
        self.faults: set[str] = set()
        self.redirects: list[str] = []
        self._key = RSAKey.generate_key(2048, {"kid": "one"})
        self._other_key = RSAKey.generate_key(2048, {"kid": "one"})
        self._codes: dict[str, dict[str, str]] = {}

    async def discovery(self, request: Request) -> Response:
        said = {name: f"{self.url}/{name}" for name in ("authorize", "token", "userinfo", "jwks")}
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": said["authorize"],
                "token_endpoint": said["token"],
                "userinfo_endpoint": said["userinfo"],
                "jwks_uri": said["jwks"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
        )

    async def jwks(self, request: Request) -> Response:
        return JSONResponse({"keys": [self._key.as_dict(private=False)]})

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert asked["client_id"] == CLIENT
        assert asked["code_challenge_method"] == "S256"
        self.redirects.append(asked["redirect_uri"])
        code = secrets.token_hex(8)
        self._codes[code] = asked
        state = "forged" if "state" in self.faults else asked["state"]
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode({'code': code, 'state': state})}", 302)

    async def token(self, request: Request) -> Response:
        sent = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        basic = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
        asked = self._codes.pop(sent.get("code", ""), None)
        challenge = hashlib.sha256(sent.get("code_verifier", "").encode()).digest()
        right = asked and asked["code_challenge"] == base64.urlsafe_b64encode(challenge).decode().rstrip("=")
        if not right or asked is None or request.headers.get("authorization") != f"Basic {basic}":
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 600, "nonce": asked["nonce"], **self.who}
        if "nonce" in self.faults:
            claims["nonce"] = "another"
        if "audience" in self.faults:
            claims["aud"] = "another studio"
        key = self._other_key if "signature" in self.faults else self._key
        id_token = jwt.encode({"alg": "RS256", "kid": "one"}, claims, key)
        return JSONResponse({"access_token": "an-access-token", "token_type": "Bearer", "id_token": id_token, "expires_in": 600})


@contextmanager
def provider() -> Iterator[Provider]:
    held = bound()
    one = Provider(f"http://127.0.0.1:{port_of(held)}")
    routes = [
        Route("/.well-known/openid-configuration", one.discovery),
        Route("/jwks", one.jwks),
        Route("/authorize", one.authorize),
        Route("/token", one.token, methods=["POST"]),
    ]
    with serving(Starlette(routes=routes), held):
        yield one
