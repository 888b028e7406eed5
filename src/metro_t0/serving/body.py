"""Bodies arrive whole, in time and in bounds before anything reads them.

app.add_middleware(WholeBody, paths=["/rank"], most_bytes=1 << 18, seconds=20)
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# How many times the longest body is received before the connection is cut.
_ENDURED = 64


class WholeBody:
    """ASGI middleware that answers 408, 413 or 415 by itself and hands on all other requests with their body read.

    A body must be announced as JSON, so that a browser asks before it lets another site's page send one.

    Args:
        app: what comes behind.
        paths: where bodies are posted to; requests for others pass untouched.
        most_bytes: longest body.
        seconds: how long a body may take to arrive.
    """

    def __init__(self, app: ASGIApp, *, paths: Collection[str], most_bytes: int, seconds: float) -> None:
        self.app = app
        self.paths = paths
        self.most_bytes = most_bytes
        self.seconds = seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http" or scope["method"] != "POST" or scope["path"] not in self.paths:
            await self.app(scope, receive, send)
            return
        try:
            body = await asyncio.wait_for(self._read(receive), self.seconds)
        except TimeoutError:
            sentence = f"the body did not arrive within {self.seconds:g} seconds"
            await _refuse(408, sentence)(scope, receive, send)
            return
        if body is None:
            return
        if (refusal := self._refusal(Headers(scope=scope), body)) is not None:
            await refusal(scope, receive, send)
            return
        await self.app(scope, _replay(body, receive), send)

    def _refusal(self, headers: Headers, body: bytes) -> JSONResponse | None:
        media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if media_type != "application/json":
            return _refuse(415, "send the body as Content-Type: application/json")
        if len(body) > self.most_bytes:
            sentence = f"the body has more than {self.most_bytes} bytes: send fewer or shorter prompts"
            return _refuse(413, sentence)
        return None

    async def _read(self, receive: Receive) -> bytes | None:
        """The body, or a little more than is allowed of it; None where the client went away.

        A client that is answered while it still sends may never read the answer. So a body that is somewhat too long is
        received to its end, and forgotten.
        """
        kept = bytearray()
        received = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            received += len(part)
            if len(kept) <= self.most_bytes:
                kept += part
            if received > _ENDURED * self.most_bytes or not message.get("more_body", False):
                return bytes(kept)


def _refuse(status: int, sentence: str) -> JSONResponse:
    # What is left of the body would be taken for the next request.
    return JSONResponse({"error": sentence}, status, {"Connection": "close"})


def _replay(body: bytes, receive: Receive) -> Receive:
    """A channel that first gives the body, then whatever happens to the connection."""
    given = False

    async def next_message() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return next_message
