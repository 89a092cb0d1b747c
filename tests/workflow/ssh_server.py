"""An OpenSSH server on loopback, of the user who starts it: own keys, own configuration, own folder, a free port.

Needs Debian's packages openssh-server and openssh-client.
"""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

PROGRAMS = ("sshd", "ssh-keygen")
SYSTEM_FOLDERS = ("/usr/sbin", "/sbin")
# Where the server, as root, confines its unprivileged half; Debian's boot scripts make it.
PRIVILEGE_SEPARATION = Path("/run/sshd")

CONFIGURATION = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/client.pub
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
PermitRootLogin prohibit-password
# Folders of tests belong to the right user, but folders above them are open to all.
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


def missing_programs() -> list[str]:
    """The programs of OpenSSH that this machine lacks."""
    return [name for name in PROGRAMS if shutil.which(name, path=_search_path()) is None]


class SshServer:
    """A server in `folder`; only the key `folder/client` gets in."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.port = _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        for key in ("host", "client"):
            self._new_key(key)
        (folder / "sshd_config").write_text(CONFIGURATION.format(port=self.port, folder=folder))

    @property
    def key(self) -> Path:
        """The private key that the server accepts."""
        return self.folder / "client"

    def url(self, place: Path) -> str:
        """The address of a folder of this machine, as DVC writes it."""
        return f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}{place}"

    def start(self) -> "SshServer":
        """Returns when the server accepts connections."""
        if os.getuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        program = shutil.which("sshd", path=_search_path())
        assert program
        command = [program, "-D", "-f", str(self.folder / "sshd_config"), "-E", str(self.folder / "log")]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        for _ in range(300):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1):
                return self
            if self._process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise RuntimeError(f"sshd did not start: {(self.folder / 'log').read_text()}")

    def stop(self) -> None:
        """Ends the server; connections that are open go on until their clients end."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(timeout=30)
            self._process = None

    def change_identity(self) -> None:
        """Gives the server another host key, as an impostor would have; takes effect at the next start."""
        for file in ("host", "host.pub"):
            (self.folder / file).unlink()
        self._new_key("host")

    def _new_key(self, name: str) -> None:
        command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", name, "-f", str(self.folder / name)]
        subprocess.run(command, check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)


def _search_path() -> str:
    return os.pathsep.join([os.environ.get("PATH", os.defpath), *SYSTEM_FOLDERS])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])
