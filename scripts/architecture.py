"""Write the listing in docs/architecture.md anew: every module with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "architecture.md"
_BEGIN, _END = "<!-- listing -->\n", "<!-- end of listing -->\n"


def main() -> None:
    """Replace what stands between the marks."""
    PAGE.write_text(renewed(PAGE.read_text()))


def renewed(page: str) -> str:
    """The page with the listing as it should be."""
    before, _, rest = page.partition(_BEGIN)
    return f"{before}{_BEGIN}{''.join(listing())}{_END}{rest.partition(_END)[2]}"


def listing() -> Iterator[str]:
    """The package's folders, each with its modules, and the modules at the top."""
    package = ROOT / "weavemw"
    yield _table("weavemw", package)
    for folder in sorted(each for each in package.iterdir() if (each / "__init__.py").exists()):
        yield f"\n{_sentence(folder / '__init__.py')}\n"
        yield _table(f"{folder.name}/", folder)


def _table(title: str, folder: Path) -> str:
    rows = [f"| `{path.name}` | {_sentence(path)} |" for path in sorted(folder.glob("*.py"))
            if path.name != "__init__.py"]
    return "\n".join([f"\n| {title} | |", "| --- | --- |", *rows, ""])


def _sentence(path: Path) -> str:
    """The docstring's first paragraph as plain Markdown."""
    text = (ast.get_docstring(ast.parse(path.read_text())) or "").partition("\n\n")[0].replace("\n", " ")
    return re.sub(r":\w+:`~?([^`]*)`", r"`\1`", text).replace("``", "`").replace("|", "\\|")


if __name__ == "__main__":
    main()
