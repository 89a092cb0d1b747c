"""containers/describe: the list of packages is valid CycloneDX, and the digest covers what it says."""

import importlib.util
import json
import sys
from importlib import metadata
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from packageurl import PackageURL

FILE = Path(__file__).parents[2] / "containers" / "describe"


@pytest.fixture(scope="module")
def describe() -> ModuleType:
    loader = SourceFileLoader("describe", str(FILE))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("describe", loader))
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = before
    return module


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "program").write_text("program")
    (tmp_path / "usr" / "library").write_text("library")
    (tmp_path / "usr" / "link").symlink_to("library")
    (tmp_path / "usr" / "folder").symlink_to("bin")
    return tmp_path


def told(package: Path, name: str, **fields: str) -> metadata.Distribution:
    folder = package / f"{name}.dist-info"
    folder.mkdir()
    lines = [f"Name: {name}", *(f"{key.replace('_', '-')}: {value}" for key, value in fields.items())]
    (folder / "METADATA").write_text("\n".join(["Metadata-Version: 2.4", *lines, ""]))
    return metadata.Distribution.at(folder)


CHANGES = {
    "content": lambda root: (root / "usr/library").write_text("Library"),
    "a new file": lambda root: (root / "usr/new").write_text(""),
    "a file gone": lambda root: (root / "usr/library").unlink(),
    "another name": lambda root: (root / "usr/library").rename(root / "usr/library2"),
    "a file that became a program": lambda root: (root / "usr/library").chmod(0o755),
    "a link's target": lambda root: ((root / "usr/link").unlink(), (root / "usr/link").symlink_to("bin")),
    "a link to a folder": lambda root: ((root / "usr/folder").unlink(), (root / "usr/folder").symlink_to(".")),
    "a link that became its target": lambda root: ((root / "usr/link").unlink(), (root / "usr/link").write_text("library")),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_of_a_file_changes_the_digest(describe: ModuleType, tree: Path, change: str):
    before = describe.tree_digest((str(tree / "usr"),))
    CHANGES[change](tree)
    assert describe.tree_digest((str(tree / "usr"),)) != before


def test_times_owners_and_image_json_do_not_count(describe: ModuleType, tree: Path):
    """The file that holds the digest cannot be covered by it; a SIF belongs to whoever runs it."""
    own = tree / "usr" / "image.json"
    before = describe.tree_digest((str(tree / "usr"),), own)
    own.write_text("{}")
    (tree / "usr" / "library").touch()
    assert describe.tree_digest((str(tree / "usr"),), own) == before
    assert describe.tree_digest((str(tree / "usr"),)) != before


def test_licences_are_those_that_packages_state(describe: ModuleType, tmp_path: Path):
    def licences(name: str, **fields: str) -> list[dict]:
        return describe.python_component(told(tmp_path, name, Version="1", **fields)).get("licenses", [])

    assert licences("a", License_Expression="MIT OR Apache-2.0", License="x") == [{"expression": "MIT OR Apache-2.0"}]
    assert licences("b", Classifier="License :: OSI Approved :: BSD License") == [{"license": {"name": "BSD License"}}]
    assert licences("c", License="NVIDIA Proprietary Software") == [{"license": {"name": "NVIDIA Proprietary Software"}}]
    both = licences("f", License="LicenseRef-NVIDIA-Proprietary", Classifier="License :: Other/Proprietary License")
    assert [each["license"]["name"] for each in both] == ["LicenseRef-NVIDIA-Proprietary", "Other/Proprietary License"]
    assert licences("d", License="BSD\n  Copyright (c)\n  all of it") == [{"license": {"name": "BSD"}}]
    assert licences("e") == []


def test_debian_licences_come_from_the_copyright_file(describe: ModuleType, tmp_path: Path):
    def licences(text: str | None) -> list[str]:
        (tmp_path / "libx").mkdir(exist_ok=True)
        (tmp_path / "libx" / "copyright").unlink(missing_ok=True)
        if text is not None:
            (tmp_path / "libx" / "copyright").write_text(text)
        found = describe.debian_component("libx", "1:2.0-1+b1", "amd64", "debian-12", tmp_path)
        return [each["license"]["name"] for each in found.get("licenses", [])]

    assert licences("Files: *\nLicense: LGPL-2.1+\n text\n\nLicense: GPL-2\n\nLicense: LGPL-2.1+\n") == ["GPL-2", "LGPL-2.1+"]
    assert licences("It is under the GPL; see `/usr/share/common-licenses/GPL-3'.") == ["GPL-3"]
    assert licences(None) == []


def test_the_list_of_packages_is_valid_cyclonedx(describe: ModuleType, tmp_path: Path):
    python = [describe.python_component(package) for package in metadata.distributions() if package.metadata["Name"]]
    debian = [describe.debian_component("libstdc++6", "1:12.2.0-14+deb12u1~rc", "amd64", "debian-12", tmp_path)]
    unique = {component["bom-ref"]: component for component in python + debian}
    text = json.dumps(describe.bill_of_materials("anchored", "0.1.0", list(unique.values())))
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    urls = [PackageURL.from_string(component["purl"]) for component in unique.values()]
    assert PackageURL.from_string(debian[0]["purl"]).version == "1:12.2.0-14+deb12u1~rc"
    assert PackageURL.from_string(debian[0]["purl"]).name == "libstdc++6"
    (torch,) = [url for url in urls if url.name == "torch"]
    assert torch.version == metadata.version("torch")
