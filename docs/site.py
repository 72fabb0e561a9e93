"""A hook of mkdocs: README.md becomes the site's first page, and links that lead out of docs/ lead to copies of those files in the site.

So the repository's pages are written once, for the repository, and the site needs no address of it. A link to a file that does not exist
stays as it is, and the strict build refuses it.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

LINK = re.compile(r"(?<=\]\()([^)#\s]+)(?=[)#])")
HOME = "index.md"
COPIES = "repository"


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    files.append(File.generated(config, HOME, abs_src_path=str(_root(config) / "README.md")))
    for page in list(files.documentation_pages()):
        for link in LINK.findall(page.content_string):
            place = _place(page.src_uri, link)
            source = _root(config) / place
            if not place.startswith("docs/") and place != "README.md" and source.is_file() and not files.get_file_from_path(_copy(place)):
                files.append(File.generated(config, _copy(place), abs_src_path=str(source)))
    return files


def on_page_markdown(markdown: str, *, page: Page, files: Files, **_: object) -> str:
    def inside(link: re.Match[str]) -> str:
        place = _place(page.file.src_uri, link[0])
        if place == "README.md":
            target = HOME
        elif place.startswith("docs/"):
            target = place.removeprefix("docs/")
        elif files.get_file_from_path(_copy(place)):
            target = _copy(place)
        else:
            return link[0]
        return posixpath.relpath(target, posixpath.dirname(page.file.src_uri) or ".")

    return LINK.sub(inside, markdown)


def _root(config: MkDocsConfig) -> Path:
    return Path(config.docs_dir).parent


def _place(src_uri: str, link: str) -> str:
    """Where a link of a page leads, from the top of the repository."""
    if "://" in link:
        return link
    at = "" if src_uri == HOME else posixpath.dirname(f"docs/{src_uri}")
    return posixpath.normpath(posixpath.join(at, link))


def _copy(place: str) -> str:
    """Markdown and Python would be taken for a page or be excluded: a copy is plain text."""
    return f"{COPIES}/{place}.txt"
