"""A hub of one data set or model on the loopback interface: the routes `datasets` and `huggingface_hub` ask for, and no others.

It lets the run that fetches from the hub be tested with the real libraries over real HTTP, without the network.
"""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import threading
import urllib.parse
from collections.abc import Mapping

COMMIT = "a" * 40


class HubServer(http.server.ThreadingHTTPServer):
    """Serves `files` (path -> bytes, no folders) as the repository `name` of a kind; everything else is not there.

    `private`: what it says of itself; None = as it was asked to be when it was made. `held`: the second half of such a file is sent
    once its event is set. `cut`: files whose sending breaks off in the middle, each time. `gated`: what it holds is told, and the
    files are refused.
    """

    def __init__(self, name: str, files: Mapping[str, bytes], kind: str = "datasets", private: bool | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.name, self.files, self.kind, self.private = name, dict(files), kind, private
        self.held: dict[str, threading.Event] = {}
        self.cut: set[str] = set()
        self.gated = False
        self.sent: list[str] = []  # the files that were asked for, in order
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        self.thread = threading.Thread(target=self.serve_forever, daemon=True)
        self.thread.start()

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    server: HubServer
    protocol_version = "HTTP/1.1"

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urllib.parse.unquote(urllib.parse.urlparse(self.path).path)
        api = f"/api/{self.server.kind}/{self.server.name}/"
        resolve = f"{'' if self.server.kind == 'models' else f'/{self.server.kind}'}/{self.server.name}/resolve/"
        if path.startswith(resolve):
            self._file(path.removeprefix(resolve).split("/", 1)[1])
        elif path.startswith(api + "tree/"):
            deeper = path.removeprefix(api + "tree/").partition("/")[2]
            self._missing("EntryNotFound") if deeper else self._json([_entry(*file) for file in self.server.files.items()])
        elif path.startswith(api + "revision/") or path == api.removesuffix("/"):
            siblings = [{"rfilename": name, "size": len(body)} for name, body in self.server.files.items()]
            private = bool(self.server.private)
            self._json(
                {"id": self.server.name, "sha": COMMIT, "siblings": siblings, "private": private, "gated": False, "tags": []}
            )
        else:
            self._missing("RepoNotFound")

    do_HEAD = do_GET

    def do_POST(self) -> None:
        """What a commit asks for: the repository, how each file is to be sent, and the commit itself."""
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        api = f"/api/{self.server.kind}/{self.server.name}/"
        if self.path == "/api/repos/create":
            if self.server.private is None:
                self.server.private = json.loads(body).get("visibility") == "private"
            self._json({"url": f"{self.server.url}/datasets/{self.server.name}"})
        elif self.path == "/api/validate-yaml":  # of a README that is part of a commit
            self._json({"errors": [], "warnings": []})
        elif self.path.startswith(api + "preupload/"):
            files = [{**file, "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]]
            self._json({"files": files})
        elif self.path.startswith(api + "commit/"):
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "file":
                    self.server.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
                elif line["key"] == "deletedFile":
                    del self.server.files[line["value"]["path"]]
            self._json({"commitUrl": f"{self.server.url}/datasets/{self.server.name}/commit/{COMMIT}", "commitOid": COMMIT})
        else:
            self._missing("RepoNotFound")

    def _file(self, name: str) -> None:
        body = self.server.files.get(name)
        if body is None:
            self._missing("EntryNotFound")
            return
        if self.server.gated:
            self._reply(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        if self.command == "GET":
            self.server.sent.append(name)
        headers = {"ETag": f'"{hashlib.sha1(body).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        wanted = self.headers.get("Range")
        if not wanted:
            self._reply(200, body, headers, name)
            return
        first, _, last = wanted.removeprefix("bytes=").partition("-")
        start, end = int(first), min(int(last or len(body)), len(body) - 1)
        self._reply(206, body[start : end + 1], {**headers, "Content-Range": f"bytes {start}-{end}/{len(body)}"}, name)

    def _json(self, value: object) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _missing(self, code: str) -> None:
        self._reply(404, b"{}", {"X-Error-Code": code, "X-Repo-Commit": COMMIT})

    def _reply(self, status: int, body: bytes, headers: Mapping[str, str], name: str = "") -> None:
        self.send_response(status)
        for header, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        half = len(body) // 2 if name in self.server.held or name in self.server.cut else 0
        self.wfile.write(body[:half])
        if name in self.server.cut:
            self.close_connection = True
            return
        if name in self.server.held:
            self.wfile.flush()
            self.server.held[name].wait()
        self.wfile.write(body[half:])


def _entry(path: str, body: bytes) -> dict[str, object]:
    return {"type": "file", "path": path, "size": len(body), "oid": hashlib.sha1(body).hexdigest()}
