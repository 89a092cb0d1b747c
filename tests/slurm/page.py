"""docs/cluster.md, as a user follows it: edits of the profile, and commands."""

import re
from dataclasses import dataclass
from pathlib import Path

from checkout import REPOSITORY, Checkout

PAGE = REPOSITORY / "docs" / "cluster.md"
PROFILE = Path("profiles/slurm/profile.yaml")
MINUTES = 60


@dataclass(frozen=True)
class Followed:
    """A checkout after a user's session.

    Args:
        checkout: where it was.
        session: blocks of commands with what they printed, in order.
        moments: what the nodes ran, second by second.
    """

    checkout: Checkout
    session: list[tuple[str, str]]
    moments: list[dict[str, tuple[str, str]]]

    def printed(self, part: str) -> str:
        """What the last block that contains `part` printed."""
        return [text for block, text in self.session if part in block][-1]


def commands() -> list[str]:
    """The blocks of commands, in the order of the page."""
    return re.findall(r"```bash\n(.*?)```", PAGE.read_text(), re.DOTALL)


def command(part: str) -> str:
    """The only block that contains `part`."""
    (block,) = (block for block in commands() if part in block)
    return block


def edit_profile(checkout: Checkout) -> None:
    """Makes the edits of the page."""
    (block,) = re.findall(r"```diff\n(.*?)```", PAGE.read_text(), re.DOTALL)
    lines = block.splitlines()
    for old, new in zip(lines[::2], lines[1::2], strict=True):
        assert (old[0], new[0]) == ("-", "+"), block
        checkout.edit(str(PROFILE), f"\n{old[1:]}\n", f"\n{new[1:]}\n")


def follow(checkout: Checkout, block: str) -> str:
    """Runs a block of commands; returns what it printed."""
    done = checkout.run("bash", "-euo", "pipefail", "-c", block, timeout=20 * MINUTES)
    return done.stdout + done.stderr
