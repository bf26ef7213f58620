"""The pages name files, modules and links that exist."""

from __future__ import annotations

import functools
import re
import textwrap
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

_FOLDERS = "service|model|export|deploy|loadtests|tests|docs"
_PATH = re.compile(rf"`((?:{_FOLDERS})/[\w./*<>-]*)(?:::[\w\[\]-]+)?`")
_BARE_PAGE = re.compile(r"(?<![\w./`-])(docs/[\w-]+\.md)")
_FILE_NAME = re.compile(r"`([\w-]+\.(?:py|js|css))`")
# Pages that show a file for the reader to write begin it with this comment.
_SHOWN_FILE = re.compile(r"<!-- file: (\S+) -->")
_MODULE = re.compile(rf"python -m ((?:{_FOLDERS})(?:\.\w+)*)(\.<)?")
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_FENCED = re.compile(r"(?ms)^ *```.*?^ *```")


def page_name(page: Path) -> str:
    """The page's path for the id of a test."""
    return str(page.relative_to(ROOT))


def missing_paths(text: str) -> list[str]:
    """Returns the paths of the repository, and the bare names of code files, that no file or folder has.

    `*` and `<name>` stand for any name.
    """
    paths = [*_PATH.findall(text), *_BARE_PAGE.findall(text)]
    missing = [path for path in paths if not any(ROOT.glob(re.sub(r"<\w+>", "*", path.rstrip("/"))))]
    known = _file_names() | set(_SHOWN_FILE.findall(text))
    return missing + [name for name in _FILE_NAME.findall(text) if name not in known]


@functools.cache
def _file_names() -> set[str]:
    return {file.name for folder in _FOLDERS.split("|") for file in (ROOT / folder).rglob("*.*")}


def missing_modules(text: str) -> list[str]:
    """Returns the modules after `python -m` that cannot be run; `package.<part>` needs the package only."""
    missing = []
    for name, placeholder in _MODULE.findall(text):
        path = ROOT.joinpath(*name.split("."))
        runnable = path.is_dir() if placeholder else path.with_suffix(".py").exists() or (path / "__main__.py").exists()
        if not runnable:
            missing.append(name)
    return missing


def anchors(text: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub makes them."""
    slugs: list[str] = []
    seen: Counter[str] = Counter()
    for heading in re.findall(r"(?m)^#{1,6} (.+)$", _FENCED.sub("", text)):
        slug = re.sub(r"[^\w -]", "", heading.strip().lower()).replace(" ", "-")
        slugs.append(f"{slug}-{seen[slug]}" if seen[slug] else slug)
        seen[slug] += 1
    return set(slugs)


def broken_links(text: str, page: Path) -> list[str]:
    """Returns the relative links of a page whose file or heading does not exist."""
    broken = []
    for link in _LINK.findall(_FENCED.sub("", text)):
        if re.match(r"\w+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = page.parent / target
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8") if target else text)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_path_that_a_page_names_exists(page: Path) -> None:
    assert missing_paths(page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_module_that_a_page_runs_exists(page: Path) -> None:
    assert missing_modules(page.read_text("utf-8")) == []


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_every_link_of_a_page_leads_to_a_file_and_a_heading(page: Path) -> None:
    assert broken_links(page.read_text("utf-8"), page) == []


def test_a_page_that_names_what_does_not_exist_is_found() -> None:
    text = textwrap.dedent("""
    # A page

    python -m service.nowhere, python -m service.reference, python -m loadtests.quality.<part>

    `service/nowhere.py` `service/app.py` `service/web/*.html` `model/network/encoders/<name>.py` `nowhere.py`
    docs/nowhere.md [here](#a-page) [not here](#another-page) [gone](docs/nowhere.md) [gone](README.md#nowhere)
    """)
    assert missing_paths(text) == ["service/nowhere.py", "docs/nowhere.md", "docs/nowhere.md", "nowhere.py"]
    assert missing_modules(text) == ["service.nowhere"]
    assert broken_links(text, ROOT / "page.md") == ["#another-page", "docs/nowhere.md", "README.md#nowhere"]
