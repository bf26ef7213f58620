"""The pages and their assets: plain files of `service/web`, and nothing else on the disk.

A page is `<name>.html`; it loads `assets/<file>`. Its addresses are relative, so that it works below any path prefix.
No page has inline scripts or styles, so that its policy can forbid both, and none loads anything from another origin.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.api.direct_route import DirectRoute
from service.common.request_errors import NotFound

router = APIRouter(route_class=DirectRoute, include_in_schema=False)

FOLDER = Path(__file__).resolve().parents[1] / "web"
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
_PAGES = ".html"


@dataclass(frozen=True, slots=True)
class File:
    """A file as it is served."""

    content: bytes
    media_type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """Returns the files that may be served, by name. They are read once, so that no name can lead elsewhere."""
    return {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}


def page(name: str, request: Request) -> Response:
    """Returns the page `<name>.html`, or 304 if the browser has it.

    Args:
        name: Of the page, without its suffix.
        request: Its `If-None-Match` header is read.

    Raises:
        KeyError: No page has this name.
    """
    return _answer(files()[name + _PAGES], request, {"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@router.get("/assets/{name}")
async def asset(request: Request, name: str) -> Response:
    """Returns a file that pages load. It is open to everybody: the repository has the same content."""
    file = files().get(name)
    if file is None or name.endswith(_PAGES):
        raise NotFound("no asset with this name")
    return _answer(file, request, {})


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, _TYPES[path.suffix], f'"{blake2b(content, digest_size=12).hexdigest()}"')


def _answer(file: File, request: Request, headers: dict[str, str]) -> Response:
    # A page and its assets must be of one release: browsers cache them, and revalidate them each time.
    headers = {**headers, "ETag": file.etag, "Cache-Control": "no-cache"}
    if file.etag in (request.headers.get("if-none-match") or ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers={**headers, "Content-Type": file.media_type})
