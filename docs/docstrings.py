"""Our docstrings for the API pages: free text that is read in a terminal becomes Markdown that keeps its lines.

A line `name: meaning` starts an item of a list; `Source:`, `Raises` and `Returns` start a paragraph; `>>>` and what it
prints, up to an empty line, are a block of code.
"""

import re

import griffe

ITEM = re.compile(r"(?P<names>[a-z*][\w*]*(?:(?:, | \.\.\. )[a-z*][\w*]*)*): (?P<meaning>\S.*)")
PARAGRAPH = re.compile(r"(Source|Sources|Raises|Returns|Example|Args)\b")


class KeptLines(griffe.Extension):
    def on_object(self, *, obj: griffe.Object, **kwargs: object) -> None:
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(text: str) -> str:
    lines: list[str] = []
    in_item, in_session, indent = False, False, 0
    for line in text.splitlines():
        stripped = line.strip()
        if in_session or stripped.startswith(">>>"):
            if not in_session:
                lines.append("```pycon")
            in_item, in_session = False, bool(stripped)
            lines.append(line if stripped else "```")
            continue
        depth = len(line) - len(line.lstrip())
        example = depth >= 4 and not in_item
        item = None if example else ITEM.fullmatch(stripped)
        if not stripped or example:
            in_item = False
            lines.append(line)
        elif item and not (in_item and depth > indent):
            names = ", ".join(f"`{name}`" for name in re.split(r", | \.\.\. ", item["names"]))
            lines += ([] if in_item else [""]) + [f"- {names}: {escaped(item['meaning'])}"]
            in_item, indent = True, depth
        elif (in_item and depth <= indent and ends_sentence(lines[-1]) and stripped[0].isupper()) or (
            PARAGRAPH.match(stripped) and not (in_item and depth > indent)
        ):
            lines += ["", escaped(stripped)]
            in_item = False
        else:
            lines.append(("    " if in_item else "") + escaped(stripped))
    if in_session:
        lines.append("```")
    return "\n".join(lines)


def ends_sentence(line: str) -> bool:
    return line.endswith((".", ":"))


def escaped(text: str) -> str:
    """Formulas stay formulas: * and _ are no emphasis, < is no tag. `code` is left alone."""
    parts = re.split(r"(`[^`]+`)", text)
    parts[::2] = [re.sub(r"([*_\\])", r"\\\1", part.replace("<", "&lt;")) for part in parts[::2]]
    return "".join(parts)
