"""What MkDocs does not do by itself for this site.

- Executed notebooks and the project's own pages (CONTRIBUTING …) lie outside of ``docs/``: they are put into the site.
- Links from a page to the code lead to a copy of that file as text.
- TeX becomes MathML at build time, so that formulas show without a script, a font or a network.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md")
_LINK = re.compile(r"(\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")
_FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.DOTALL)
_TEXT_CELL = re.compile(r'(<div class="[^"]*jp-RenderedMarkdown[^"]*"[^>]*>)(.*?)(</div>)', re.DOTALL)
_TEX = re.compile(r"\$\$(.+?)\$\$|\$([^$]+?)\$", re.DOTALL)
_ROLE = re.compile(r":(?:class|func|meth|mod|attr|data):\s*<code>")
_SCRIPT = re.compile(r'<script[^>]*src="https?://[^"]*"[^>]*>\s*</script>')


def _added(path: Path, name: str, config: Any) -> File:
    return File.generated(config, name, content=path.read_bytes())


@event_priority(100)  # before the notebooks are converted
def on_files(files: Files, config: Any) -> Files:
    """Add notebooks, project pages and the code that pages link to."""
    for notebook in sorted((ROOT / "notebooks").glob("*.ipynb")):
        files.append(File(f"notebooks/{notebook.name}", str(ROOT), config.site_dir, config.use_directory_urls))
    for name in PAGES:
        files.append(File(name, str(ROOT), config.site_dir, config.use_directory_urls))
    pages = [file for file in files if file.src_uri.endswith(".md")]
    for code in sorted({code for page in pages for code in _code_links(page)}):
        files.append(_added(ROOT / code, _copy_of(code), config))
    return files


def _repository_path(target: str, page: File) -> str:
    """Where a link of ``page`` leads, from the repository's root."""
    folder = "" if page.src_uri in PAGES else posixpath.join("docs", posixpath.dirname(page.src_uri))
    return posixpath.normpath(posixpath.join(folder, target))


def _is_code(path: str) -> bool:
    outside = not path.startswith(("docs/", "notebooks/")) and path not in PAGES
    return outside and (ROOT / path).is_file()


def _code_links(page: File) -> list[str]:
    links = _LINK.findall(page.content_string)
    return [path for _, target, _ in links if _is_code(path := _repository_path(target, page))]


def _copy_of(code: str) -> str:
    return f"code/{code}.txt"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn links that hold in the repository into links that hold in the site."""
    here = posixpath.dirname(page.file.src_uri)

    def moved(found: re.Match[str]) -> str:
        path = _repository_path(found[2], page.file)
        if _is_code(path):
            site, anchor = _copy_of(path), ")"
        elif path.startswith("docs/"):
            site, anchor = path.removeprefix("docs/"), found[3]
        else:
            site, anchor = path, found[3]
        return found[1] + posixpath.relpath(site, here or ".") + anchor

    return _LINK.sub(moved, markdown)


def _mathml(tex: str, display: bool) -> str:
    tex = html.unescape(tex).strip()
    for name, plain in ((r"\arg", r"\operatorname{arg}"), (r"\lvert", "|"), (r"\rvert", "|")):
        tex = tex.replace(name, plain)
    return convert(tex, display="block" if display else "inline")


def on_page_content(content: str, page: Any, **_: Any) -> str:
    """Formulas of Markdown pages; and the roles of docstrings, which mark what is code anyway."""
    content = _ROLE.sub("<code>", content)
    return _FORMULA.sub(lambda found: _mathml(found[3], found[2] == "["), content)


def on_post_page(output: str, page: Any, **_: Any) -> str:
    """Formulas of notebooks; and no script from elsewhere."""
    if page.file.src_uri.endswith(".ipynb"):

        def cell(found: re.Match[str]) -> str:
            text = _TEX.sub(lambda tex: _mathml(tex[1] or tex[2], tex[1] is not None), found[2])
            return found[1] + text + found[3]

        output = _TEXT_CELL.sub(cell, output)
    return _SCRIPT.sub("", output)
