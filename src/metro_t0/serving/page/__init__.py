"""The page where a person asks, and the page about the API: plain files without anything from outside.

add_pages(app)    # GET / and /docs, and the files that they use
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib.resources import files

from fastapi import FastAPI, Response

# Every file by its address: nothing else can be asked for.
_FILES = {
    "/": ("ask.html", "text/html"),
    "/docs": ("docs.html", "text/html"),
    "/page/ask.js": ("ask.js", "text/javascript"),
    "/page/docs.js": ("docs.js", "text/javascript"),
    "/page/page.css": ("page.css", "text/css"),
}
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def add_pages(app: FastAPI) -> None:
    """Adds the pages to the application, outside its OpenAPI document."""
    for path, (name, media_type) in _FILES.items():
        content = files(__name__).joinpath(name).read_bytes()
        app.add_api_route(path, _endpoint(content, media_type), include_in_schema=False)


def _endpoint(content: bytes, media_type: str) -> Callable[[], Awaitable[Response]]:
    async def file() -> Response:
        return Response(content, media_type=media_type, headers=_HEADERS)

    return file
