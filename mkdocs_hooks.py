"""The site has the library's pages too, and its links lead where those of the repository do."""

import os
import re
from pathlib import Path
from urllib.parse import quote, unquote

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent
LIBRARY = ROOT / "{{cookiecutter.project_slug}}/libs/faststream-otel"
LIBRARY_PAGES = ("README.md", "docs/adopt.md", "docs/layout.md", "docs/telemetry.md")
FENCED = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[([^\]]+)\]\((?!https?:|#)([^)\s#]+)(#[^)\s]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the library's pages."""
    for name in LIBRARY_PAGES:
        path = str(LIBRARY / name)
        files.append(File.generated(config, f"library/{name}", abs_src_path=path))
    return files


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point links of the repository to the site's page or, if there is none, to the repository."""
    here = Path(page.file.abs_src_path or "").resolve()
    pages = {Path(file.abs_src_path).resolve(): file.src_uri for file in files if file.abs_src_path}

    def link(found: re.Match[str]) -> str:
        text, target, section = found[1], unquote(found[2]), found[3] or ""
        path = Path(os.path.normpath(here.parent / target))
        if path in pages:
            start = Path(page.file.src_uri).parent
            return f"[{text}]({os.path.relpath(pages[path], start)}{section})"
        if not path.exists():
            return found[0]  # let MkDocs report it
        if config.repo_url:
            within = quote(str(path.relative_to(ROOT)))
            return f"[{text}]({config.repo_url.rstrip('/')}/blob/main/{within}{section})"
        return text

    parts = FENCED.split(markdown)
    return "".join(part if FENCED.fullmatch(part) else LINK.sub(link, part) for part in parts)
