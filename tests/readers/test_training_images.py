"""The reader `training-images`: a labelled dataset's training images as a bank, without labels, and without its other images."""

import image_sets
import pytest

from anchored.data.store import open_store
from anchored.errors import ConfigError, InputError
from anchored.paths import Paths
from anchored.plan.config import Config
from anchored.plan.preprocessing import transform
from anchored.preparation.step import prepare


def plan(**bank):
    return image_sets.plan(
        birds={"reader": "waterbirds", "folder": "birds", "size": 8, "published": False},
        bank={"reader": "training-images", "of": "birds", **bank},
    )


def test_val_and_test_stay_unseen(tmp_path) -> None:
    """A folder of images as bank would show the test images to pre-training and to the Fisher."""
    image_sets.waterbirds(tmp_path / "birds")
    for name in ("birds", "bank"):
        prepare(plan(), name, Paths(tmp_path))
    birds, bank = (open_store(Paths(tmp_path).data(name)) for name in ("birds", "bank"))
    train = birds.rows("train", 0)
    assert bank.index["path"].to_list() == birds.index["path"].gather(train).to_list()
    assert (bank.packed == birds.packed[train]).all()
    assert bank.index.columns == ["row", "path", "sha256"]
    assert bank.manifest["source"] == {"name": "training images of folder birds, as given"}


def test_size_and_convention_are_those_of_the_dataset_unless_given() -> None:
    entry = plan()["datasets"]["bank"]
    assert (entry["size"], entry["convention"]) == (8, "group-dro")
    assert entry["transform"] == transform("group-dro", "scenes", 8)
    entry = plan(size=20, convention="kumar")["datasets"]["bank"]
    assert entry["transform"] == transform("kumar", "scenes", 20)
    assert entry["of"]["transform"] == transform("group-dro", "scenes", 8)
    faces = image_sets.plan(
        faces={"reader": "celeba", "folder": "faces"}, bank={"reader": "training-images", "of": "faces", "size": 32}
    )
    assert faces["datasets"]["bank"]["transform"] == transform("group-dro", "faces", 32)


def test_some_are_drawn_by_the_seed(tmp_path) -> None:
    image_sets.waterbirds(tmp_path / "birds")
    prepare(plan(limit=3), "bank", Paths(tmp_path))
    assert len(open_store(Paths(tmp_path).data("bank")).index) == 3
    with pytest.raises(InputError, match="birds holds 4 images, 5 are needed"):
        prepare(plan(limit=5), "bank", Paths(tmp_path))


def test_a_changed_table_is_noticed(tmp_path) -> None:
    """Another split is another bank."""
    folder = image_sets.waterbirds(tmp_path / "birds")
    prepare(plan(), "bank", Paths(tmp_path))
    table = folder / "metadata.csv"
    table.write_text(table.read_text().replace("5,004.Species/4.jpg,0,1,0", "5,004.Species/4.jpg,0,0,0"))
    table.write_text(table.read_text().replace("1,000.Species/0.jpg,0,0,0", "1,000.Species/0.jpg,0,1,0"))
    prepare(plan(), "bank", Paths(tmp_path))
    assert "004.Species/4.jpg" in open_store(Paths(tmp_path).data("bank")).index["path"].to_list()


@pytest.mark.parametrize(
    ("of", "sentence"),
    [("nothing", "datasets.bank.of: 'nothing' is not defined; known: bank, scenes"),
     ("scenes", "datasets.bank.of: 'scenes' is not a labelled dataset in files"),
     ("bank", "datasets.bank.of: 'bank' is not a labelled dataset in files")],
)  # fmt: skip
def test_what_has_no_training_files_is_refused(of, sentence) -> None:
    datasets = {"bank": {"reader": "training-images", "of": of}, "scenes": {"reader": "digitscenes"}}
    with pytest.raises((ConfigError, ValueError)) as caught:
        Config.model_validate({"name": "sets", "datasets": datasets, "backbones": {}, "experiments": {}})
    assert sentence in str(caught.value)
