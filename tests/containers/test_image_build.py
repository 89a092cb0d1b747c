"""containers/build with programs that only write down how they were called: what is built again, with what, and when not."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTEXT = ("containers", "pyproject.toml", "src")

ENGINE = """#!/bin/sh
echo "podman $*" >>"$CALLS"
case "$1" in image) echo 1234 ;; save) echo image >"$3" ;; esac
"""
APPTAINER = """#!/bin/sh
echo "apptainer $*" >>"$CALLS"
case "$1 $*" in
build*) for each; do case "$each" in *.sif) echo sif >"$each" ;; esac; done ;;
*sbom*) echo '{"bomFormat": "CycloneDX"}' ;;
*show*) printf '{\\n "digest": "sha256:d",\\n "variant": "cpu"\\n}\\n' ;;
esac
"""
PYTHON = """#!/bin/sh
case "$*" in *pip*) ;; *) exec python3 "$@" ;; esac
echo "python $*" >>"$CALLS"
mkdir -p containers/wheels/cpu containers/wheels/cuda
"""


class Recorder:
    """A checkout whose builds call programs that write down their arguments."""

    def __init__(self, folder: Path):
        self.checkout = folder / "checkout"
        self.programs = folder / "programs"
        self.log = folder / "calls"
        ignored = shutil.ignore_patterns("__pycache__", "*.sif", "*.json", "wheels")
        for name in CONTEXT:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, self.checkout / name, ignore=ignored)
            else:
                shutil.copy(ROOT / name, self.checkout / name)
        self.programs.mkdir()
        for name, text in (("podman", ENGINE), ("apptainer", APPTAINER), ("python", PYTHON)):
            (self.programs / name).write_text(text)
            (self.programs / name).chmod(0o755)

    def build(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        self.log.write_text("")
        cleared = {key: value for key, value in os.environ.items() if key not in ("ENGINE", "BASE", "BUILD_FLAGS", "COMPRESSION")}
        settings = {"PATH": f"{self.programs}:{os.environ['PATH']}", "PYTHON": "python", "CALLS": str(self.log)}
        call = [self.checkout / "containers" / "build", *arguments]
        return subprocess.run(call, env=cleared | settings | environment, capture_output=True, text=True, check=False, timeout=300)

    @property
    def calls(self) -> list[str]:
        return self.log.read_text().splitlines()

    def edit(self, file: str) -> None:
        path = self.checkout / file
        path.write_text(path.read_text() + "\n# edited\n")


@pytest.fixture
def recorder(tmp_path: Path) -> Recorder:
    return Recorder(tmp_path)


def test_a_build_leaves_the_image_and_what_it_is(recorder: Recorder):
    done = recorder.build()
    assert done.returncode == 0, done.stderr
    folder = recorder.checkout / "containers"
    told = json.loads((folder / "anchored.json").read_text())
    assert told["digest"] == "sha256:d"
    assert told["oci"] == "sha256:1234"
    assert told["sif"].startswith("sha256:")
    assert json.loads((folder / "anchored.sbom.json").read_text()) == {"bomFormat": "CycloneDX"}
    assert (folder / "anchored.sif").is_file()
    assert "image sha256:d" in done.stdout


def test_wheels_are_fetched_with_hashes_for_the_python_of_the_image(recorder: Recorder):
    recorder.build()
    (fetch,) = [call for call in recorder.calls if call.startswith("python")]
    assert "--require-hashes" in fetch
    assert "--python-version 3.11" in fetch
    assert "--requirement containers/requirements.cpu.lock" in fetch
    (call,) = [call for call in recorder.calls if call.startswith("podman build")]
    assert "--tag localhost/anchored:cpu --build-arg VARIANT=cpu" in call


def test_options_of_the_user_reach_the_programs(recorder: Recorder):
    recorder.build(ENGINE="podman --root x", BASE="mine", BUILD_FLAGS="--isolation=chroot --network=host", COMPRESSION="-comp lzo")
    assert any(call.startswith("podman --root x build") and "--build-arg BASE=mine" in call for call in recorder.calls)
    assert any("--isolation=chroot --network=host ." in call for call in recorder.calls)
    assert any("--mksquashfs-args -comp lzo" in call for call in recorder.calls)


def test_the_cuda_image_lies_beside_that_for_cpus(recorder: Recorder):
    recorder.build()
    recorder.build("cuda")
    names = {path.name for path in (recorder.checkout / "containers").glob("anchored*.*")}
    assert {"anchored.sif", "anchored.json", "anchored-cuda.sif", "anchored-cuda.json", "anchored-cuda.sbom.json"} <= names
    assert any("localhost/anchored:cuda" in call for call in recorder.calls)


def test_a_second_build_does_nothing(recorder: Recorder):
    recorder.build()
    done = recorder.build()
    assert "nothing to do" in done.stdout
    assert recorder.calls == []


CHANGES: dict[str, Callable[[Recorder], object]] = {
    "Dockerfile": lambda recorder: recorder.edit("containers/Dockerfile"),
    "definition": lambda recorder: recorder.edit("containers/anchored.def"),
    "lock": lambda recorder: recorder.edit("containers/requirements.cpu.lock"),
    "description": lambda recorder: recorder.edit("containers/describe"),
    "code": lambda recorder: recorder.edit("src/anchored/fisher/step.py"),
    "data of the package": lambda recorder: recorder.edit("src/anchored/cost/throughput.yaml"),
    "project": lambda recorder: recorder.edit("pyproject.toml"),
    "the SIF gone": lambda recorder: (recorder.checkout / "containers" / "anchored.sif").unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_goes_into_the_image_builds_it_again(recorder: Recorder, change: str):
    recorder.build()
    CHANGES[change](recorder)
    assert recorder.build().returncode == 0
    assert any(call.startswith("podman build") for call in recorder.calls)


def test_another_base_builds_the_image_again(recorder: Recorder):
    recorder.build()
    recorder.build(BASE="mine")
    assert any(call.startswith("podman build") for call in recorder.calls)


def test_what_does_not_go_into_the_image_builds_nothing(recorder: Recorder):
    recorder.build()
    recorder.edit("containers/requirements.cuda.lock")
    assert "nothing to do" in recorder.build().stdout


def test_a_failed_build_leaves_no_word_of_an_image(recorder: Recorder):
    recorder.build()
    recorder.edit("containers/Dockerfile")
    (recorder.programs / "podman").write_text("#!/bin/sh\necho no space >&2\nexit 125\n")
    done = recorder.build()
    assert done.returncode == 125
    assert "no space" in done.stderr
    assert not (recorder.checkout / "containers" / "anchored.json").exists()


@pytest.mark.parametrize(
    ("arguments", "environment", "code", "sentence"),
    [(["gpu"], {}, 2, "choose cpu or cuda"), ([], {"ENGINE": "no-such-engine --root x"}, 5, "no-such-engine is not installed")],
)
def test_what_is_missing_is_said_at_once(
    recorder: Recorder, arguments: list[str], environment: dict[str, str], code: int, sentence: str
):
    done = recorder.build(*arguments, **environment)
    assert done.returncode == code
    assert sentence in done.stderr
    assert recorder.calls == []


def test_wheels_are_fetched_again_for_another_lock_only(recorder: Recorder):
    recorder.build()
    recorder.edit("src/anchored/probe.py")
    recorder.build()
    assert not any(call.startswith("python") for call in recorder.calls)
    recorder.edit("containers/requirements.cpu.lock")
    recorder.build()
    assert any(call.startswith("python") for call in recorder.calls)
