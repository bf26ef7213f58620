"""Pages and what they load: plain files beside this module, and nothing else of the disk.

A page is `<name>.html`; it loads `/assets/<file>`. No page has a script or a style inside, so that its policy can
forbid both, and none loads anything from elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

from fastapi import APIRouter, Request, Response

from service.api.direct_route import DirectRoute
from service.common.errors import NotFound

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
    content: bytes
    media_type: str
    etag: str


@cache
def files() -> dict[str, File]:
    """What may be served, by name: read once, so a name can lead nowhere else."""
    return {path.name: _read(path) for path in sorted(FOLDER.iterdir()) if path.suffix in _TYPES}


def page(name: str, request: Request) -> Response:
    """The page `<name>.html`, or 304 where the browser has it. Raises KeyError for a name that no page has."""
    return _answer(files()[name + _PAGES], request, {"Content-Security-Policy": CONTENT_SECURITY_POLICY})


@router.get("/assets/{name}")
async def asset(request: Request, name: str) -> Response:
    """A file that pages load. Open to everybody: there is nothing in it but what the repository has."""
    found = files().get(name)
    if found is None or name.endswith(_PAGES):
        raise NotFound("there is no such file")
    return _answer(found, request, {})


def _read(path: Path) -> File:
    content = path.read_bytes()
    return File(content, _TYPES[path.suffix], f'"{blake2b(content, digest_size=12).hexdigest()}"')


def _answer(file: File, request: Request, headers: dict[str, str]) -> Response:
    # A page and its files must be of one release: browsers keep them, and ask whether they still hold.
    headers = {**headers, "ETag": file.etag, "Cache-Control": "no-cache"}
    if file.etag in (request.headers.get("if-none-match") or ""):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers={**headers, "Content-Type": file.media_type})
