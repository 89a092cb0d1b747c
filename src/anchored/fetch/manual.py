"""The generated part of docs/datasets.md: the list, and a section a source.

`python -m anchored.fetch.manual docs/datasets.md` writes it anew; a test compares.
"""

import sys
from pathlib import Path

from anchored.fetch.listing import list_sources
from anchored.fetch.sources import ByHand, Hub, Option, RemoteFile, Source, load_sources
from anchored.files import write_text

LIST, SECTIONS, END = ("<!-- generated: list -->", "<!-- generated: sources -->", "<!-- end -->")


def fill(text: str) -> str:
    """`text` with what lies between each mark and the next end replaced."""
    sections = "\n".join(_section(source) for source in load_sources().values())
    for mark, content in ((LIST, list_sources()), (SECTIONS, sections)):
        before, _, rest = text.partition(mark)
        after = rest.partition(END)[2]
        text = f"{before}{mark}\n{content.rstrip()}\n{END}{after}"
    return text


def _section(source: Source) -> str:
    where = f"data/{source.target}/" if source.kind == "dataset" else f"weights/{source.target}"
    licences = "; ".join(f"{licence.name}, {licence.url}" if licence.url else licence.name for licence in source.licences)
    lines = [f"### {source.title}: `{source.name}`", "", *_origin(source, where)]
    lines += ["", f"Licence: {licences}.", f"Cite: {source.citation}"]
    if source.note:
        lines += ["", source.note]
    return "\n".join([*lines, "", "```yaml", source.reads.rstrip(), "```", ""])


def _origin(source: Source, where: str) -> list[str]:
    if source.by_hand:
        return _by_hand(source.by_hand, source.name, where)
    if source.hub:
        return _from_hub(source.hub, where)
    if source.builder:
        return [f"Built here, to `{where}`."]
    return [line for file in source.files for line in _download(file, where)]


def _download(file: RemoteFile, where: str) -> list[str]:
    archive = "".join(f", archive {url}" for url in file.archive)
    digest = [f"`{file.digest}`."] if file.digest else []
    return [f"From {file.url}{archive}, to `{where}`.", *digest]


def _from_hub(hub: Hub, where: str) -> list[str]:
    commit = f"at `{hub.revision}`" if hub.revision else "at the newest commit of the first time"
    names = ", ".join(f"`{name}`" for name in hub.files)
    page = f"https://huggingface.co/{'datasets/' if hub.type == 'dataset' else ''}{hub.repo}"
    return [f"From {page} {commit}: {names}, to `{where}`.", *(f"`{digest}`." for digest in hub.digests.values())]


def _by_hand(rules: ByHand, name: str, where: str) -> list[str]:
    checks = [f"- {placed.what}: " + ", or ".join(_option(option) for option in placed.any) for placed in rules.files]
    return [rules.text, "", f"Place it in `{where}`; `anchored fetch {name}` then checks:", "", *checks]


def _option(option: Option) -> str:
    if option.folder:
        return f"the folder `{option.folder}/`" + (f" with {option.entries:,} entries" if option.entries else "")
    return f"`{option.file}`, " + (f"`{option.digest}`" if option.digest else "the same from the first check on")


if __name__ == "__main__":
    page = Path(sys.argv[1])
    write_text(page, fill(page.read_text()))
