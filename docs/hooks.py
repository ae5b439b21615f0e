"""What the site needs beside the pages: tutorials as pages, and no links to files that the site does not have."""

import pathlib
import posixpath
import re
from typing import Any

import jupytext
from mkdocs.structure.files import File, Files

DOCS = pathlib.Path(__file__).parent
_LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, config: Any) -> Files:
    """Adds a page for every tutorial, which is a script in jupytext's percent format."""
    for script in sorted((DOCS / "tutorials").glob("*.py")):
        text = jupytext.writes(jupytext.read(script), "md")
        content = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.S)
        files.append(File.generated(config, f"tutorials/{script.stem}.md", content=content))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turns links to source files into plain text, and links to a tutorial's script into links to its page."""
    folder = posixpath.dirname(page.file.src_uri)

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        if re.match(r"[a-z]+:|#", target):
            return match[0]
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("../"):
            return text
        return f"[{text}]({target[:-3]}.md)" if re.fullmatch(r"tutorials/\w+\.py", path) else match[0]

    # Code is left as it is.
    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.M | re.S)
    return "".join(part if part.startswith("```") else _LINK.sub(replace, part) for part in parts)
