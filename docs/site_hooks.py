"""Hooks of the site's build (mkdocs.yml): pages from outside of docs/, links to them, diagrams.

The pages are written for whoever reads them in the repository, where README.md is the first one and
each room has its own. The site has those too, under names of its own, and as files whatever else a
page links to, for instance a unit of deploy/. A diagram of states is drawn by Graphviz, because
mermaid would be a script of three megabytes that a browser runs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[1]
#: Pages of the repository -> their names in the site.
OUTSIDE: Final = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
} | {
    f"{page.parent.name}/README.md": f"rooms/{page.parent.name}.md"
    for page in sorted(ROOT.glob("[a-z]*/README.md"))
}
_SITE: Final = {name: path for path, name in OUTSIDE.items()}
_LINK: Final = re.compile(r"(\]\()([^)\s#]+)((?:#[^)\s]*)?\))")
_CODE: Final = re.compile(r"(^```.*?^```$)", re.DOTALL | re.MULTILINE)
_MERMAID: Final = re.compile(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_STYLE: Final = (
    'bgcolor="transparent"; '
    'node [shape=box, style=rounded, fontname="sans-serif", fontsize=12, color="#888888"]; '
    'edge [fontname="sans-serif", fontsize=10, color="#888888"];'
)
_POINT: Final = '[shape=point, width=0.15, label=""]'
_ARROW: Final = re.compile(r"\s*(\S+) --> (\S+)(?: : (.*))?")


def _home(page: str) -> Path:
    """Where a page of the site lies in the repository."""
    return ROOT / _SITE[page] if page in _SITE else ROOT / "docs" / page


def _target(page: str, link: str) -> Path | None:
    """The file of the repository that a page links to; None: it is outside, or not there."""
    if "://" in link or link.startswith("mailto:"):
        return None
    found = (_home(page).parent / link).resolve()
    return found if found.exists() and found.is_relative_to(ROOT) else None


def _name(target: Path) -> str:
    """The name in the site of a file of the repository."""
    path = target.relative_to(ROOT).as_posix()
    if path in OUTSIDE:
        return OUTSIDE[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"files/{path}"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from outside, and the files that pages link to."""
    for path, name in OUTSIDE.items():
        files.append(File.generated(config, name, content=(ROOT / path).read_text()))
    for page in [file for file in files if file.is_documentation_page()]:
        for _, link, _ in _LINK.findall(_CODE.sub("", page.content_string)):
            target = _target(page.src_uri, link)
            if target is None or not target.is_file() or files.get_file_from_path(_name(target)):
                continue
            files.append(File.generated(config, _name(target), content=target.read_bytes()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links lead to the names in the site, and diagrams are drawn."""
    here = page.file.src_uri

    def relink(match: re.Match[str]) -> str:
        before, link, after = match.groups()
        target = _target(here, link)
        if target is None:
            return match.group()
        if target.is_dir():  # a folder of the repository, which no site has
            return f"{before}{_up(here)}{_folder(target)}{after}"
        return f"{before}{_up(here)}{_name(target)}{after}"

    drawn = _MERMAID.sub(lambda match: _draw(match.group(1)), markdown)
    parts = _CODE.split(drawn)
    return "".join(part if n % 2 else _LINK.sub(relink, part) for n, part in enumerate(parts))


def _up(page: str) -> str:
    return "../" * page.count("/")


def _folder(target: Path) -> str:
    """The page that tells of a folder."""
    readme = OUTSIDE.get(f"{target.name}/README.md")
    pages = {"deploy": "packages.md", "kubernetes": "kubernetes.md", "provisioning": "packages.md"}
    return readme or pages[target.name]


def _draw(diagram: str) -> str:
    """The states of a mermaid diagram as SVG, in the colours of the page."""
    dot = shutil.which("dot")
    if dot is None:
        raise PluginError("diagrams are drawn by Graphviz: install Debian's package graphviz")
    lines = [_STYLE]
    for line in diagram.splitlines():
        arrow = _ARROW.fullmatch(line)
        if arrow is not None:
            before, after, label = arrow.groups()
            before, after = before.replace("[*]", "begin"), after.replace("[*]", "end")
            label = (label or "").replace(", ", "\\n")
            lines.append(f'"{before}" -> "{after}" [label="{label}"]')
            lines += [f"{end} {_POINT}" for end in {"begin", "end"} & {before, after}]
    svg = subprocess.run(  # noqa: S603  # Graphviz, on a diagram of ours
        [dot, "-Tsvg"],
        input=f"digraph {{ {chr(10).join(lines)} }}",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    svg = svg[svg.index("<svg") :].replace("<text ", '<text fill="currentColor" ')
    return f'<div style="overflow-x: auto">{svg}</div>\n'
