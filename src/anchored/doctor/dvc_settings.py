"""DVC's settings, as DVC itself reads them from all of its files."""

from pathlib import Path

from anchored.programs import find, said


def settings(root: Path) -> dict[str, str] | None:
    """Every setting that is in force in a checkout; None where DVC is not installed or the folder is none of its own."""
    program = find("dvc")
    text = said([program, "config", "--list"], root) if program and (root / ".dvc").is_dir() else None
    if text is None:
        return None
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, _, value in pairs}
