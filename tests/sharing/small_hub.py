"""A server that speaks as much of the Hub as an upload takes, over real HTTP, and keeps what it was sent.

with SmallHub(token="hf_good") as hub:
    environment = {"HF_ENDPOINT": hub.address, "HF_TOKEN": "hf_good"}
    hub.files["me/model"]["README.md"]      # bytes
"""

from __future__ import annotations

import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import TracebackType
from typing import Any, Self


class SmallHub:
    """See above.

    Attributes:
        files: content by repository and path.
        private: of each repository that was made here.
    """

    def __init__(self, token: str, owner: str = "me") -> None:
        self.token, self.owner = token, owner
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self._body()
                if self.headers.get("Authorization") != f"Bearer {hub.token}":
                    self._answer(401, {"error": "Invalid username or password."})
                elif self.path == "/api/repos/create":
                    self._answer(*hub.create(json.loads(body)))
                elif self.path == "/api/validate-yaml":
                    self._answer(200, {"errors": [], "warnings": []})
                elif self.path.endswith("/preupload/main"):
                    files = [
                        {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                        for file in json.loads(body)["files"]
                    ]
                    self._answer(200, {"files": files})
                elif self.path.endswith("/commit/main"):
                    name = self.path.removeprefix("/api/models/").removesuffix("/commit/main")
                    self._answer(200, hub.commit(name, body))
                else:
                    self._answer(404, {"error": f"no {self.path} here"})

            def do_GET(self) -> None:
                self._answer(404, {"error": f"no {self.path} here"})

            def _body(self) -> bytes:
                if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                    return self.rfile.read(int(self.headers.get("Content-Length", 0)))
                content = b""
                while size := int(self.rfile.readline(), 16):
                    content += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
                return content

            def _answer(self, status: int, content: dict[str, Any]) -> None:
                text = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"

    def create(self, wanted: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        owner = wanted.get("organization") or self.owner
        if owner != self.owner:
            return 403, {"error": "You don't have the rights to create a model under this namespace"}
        name = f"{owner}/{wanted['name']}"
        if name.endswith("/full"):
            return 507, {"error": "Private storage limit reached"}
        address = {"url": f"{self.address}/{name}", "name": name}
        if name in self.files:
            return 409, {"error": "You already created this model repo", **address}
        # Said by one key or the other, by the client's version.
        self.private[name] = bool(wanted.get("private")) or wanted.get("visibility") == "private"
        self.files[name] = {}
        return 200, address

    def commit(self, name: str, body: bytes) -> dict[str, Any]:
        for line in body.splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                self.files[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
        return {
            "success": True,
            "commitOid": "0" * 40,
            "commitUrl": f"{self.address}/{name}/commit/{'0' * 40}",
        }

    def __enter__(self) -> Self:
        self._thread = Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
