"""Parts of a measurement: they add up, and parts of different measurements never do."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from fisher_cases import CASES, assert_equal_per_tensor

from anchored.errors import InputError
from anchored.fisher import diagonal_fisher, load_fisher, save_fisher
from anchored.fisher.errors import ForeignFisher
from anchored.fisher.shards import Part, load_part, merge_parts, save_part

VIT = CASES[1]
FACTS = {
    "backbone_digest": "3f9c", "objective": "dino", "estimator": "teacher", "images_digest": "77ab", "views": "2 global, 0 local",
    "precision": "fp32",
}  # fmt: skip


def parts(folder: Path, sizes=(2, 1, 2), **options) -> dict[Path, Part]:
    """The five images of the case in ranges of these sizes, written and read back."""
    found, start = {}, 0
    for index, size in enumerate(sizes):
        batch = VIT.batch()[start : start + size].float()
        fisher = diagonal_fisher(VIT.model(torch.float32), [batch], VIT.loss, first_image=start, **options)
        path = folder / f"part-{index}.safetensors"
        save_part(path, Part(fisher, FACTS, start, start + size, 5, {"norm.bias": 1e-7} if index == 0 else {}))
        found[path] = load_part(path)
        start += size
    return found


def changed(found: dict[Path, Part], index: int, **values) -> dict[Path, Part]:
    path = list(found)[index]
    return found | {path: replace(found[path], **values)}


def test_a_part_comes_back_as_it_was_written(tmp_path):
    for path, part in parts(tmp_path, backend="signs").items():
        save_part(tmp_path / "again", part)
        assert (tmp_path / "again").read_bytes() == path.read_bytes()
    assert part.fisher.backend == "signs"
    assert part.facts == FACTS


@pytest.mark.parametrize("backend", ["hooks", "loop"])
def test_merged_parts_are_the_whole(tmp_path, backend):
    fisher, facts, errors = merge_parts(parts(tmp_path, backend=backend))
    whole = diagonal_fisher(VIT.model(torch.float32), [VIT.batch().float()], VIT.loss, backend=backend)
    assert (fisher.count, fisher.backend, facts, errors) == (5, backend, FACTS, {"norm.bias": 1e-7})
    assert_equal_per_tensor(fisher, whole, rtol=1e-5)


def test_the_order_of_the_files_does_not_matter(tmp_path):
    """A file system lists shards in any order; floating-point sums depend on theirs."""
    found = parts(tmp_path)
    first, second = merge_parts(found)[0], merge_parts(dict(reversed(found.items())))[0]
    assert all(torch.equal(first.sums[name], second.sums[name]) for name in first)


@pytest.mark.parametrize("fact", FACTS)
def test_parts_of_different_measurements_are_refused(tmp_path, fact):
    found = changed(parts(tmp_path), 1, facts=FACTS | {fact: "another"})
    with pytest.raises(ForeignFisher, match=rf"part-1.* differ in {fact} \({FACTS[fact]} and another\)\."):
        merge_parts(found)


def test_an_estimate_is_no_part_of_an_exact_measurement(tmp_path):
    found = parts(tmp_path)
    other = replace(list(found.values())[1].fisher, backend="signs")
    with pytest.raises(ForeignFisher, match=r"differ in backend \(hooks and signs\)"):
        merge_parts(changed(found, 1, fisher=other))


def test_parts_of_another_list_are_refused(tmp_path):
    with pytest.raises(ForeignFisher, match=r"differ in length of the image list \(5 and 6\)"):
        merge_parts(changed(parts(tmp_path), 2, total=6))


@pytest.mark.parametrize(
    ("values", "index", "said"),
    [
        ({"start": 3, "stop": 4}, 1, r"part-1.* holds 1 images, 3 to 4, where those from 2 on are needed"),
        ({"start": 1, "stop": 2}, 1, r"part-1.* holds 1 images, 1 to 2, where those from 2 on are needed"),
        ({"stop": 4}, 2, r"part-2.* holds 2 images, 3 to 4"),
    ],
    ids=["a gap", "an overlap", "fewer images than said"],
)
def test_every_image_counts_once(tmp_path, values, index, said):
    """Merging a shard twice gave a Fisher that looked right and was not."""
    with pytest.raises(InputError, match=said):
        merge_parts(changed(parts(tmp_path), index, **values))


def test_a_missing_part_is_noticed(tmp_path):
    found = parts(tmp_path)
    with pytest.raises(InputError, match="the parts end with image 3, the list has 5"):
        merge_parts(dict(list(found.items())[:2]))


def test_a_torn_part_is_refused(tmp_path):
    path = next(iter(parts(tmp_path)))
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(InputError, match="truncated or no safetensors"):
        load_part(path)


def test_a_whole_fisher_is_no_part_and_a_part_no_whole(tmp_path):
    found = parts(tmp_path)
    save_fisher(tmp_path / "whole", next(iter(found.values())).fisher, metadata={})
    with pytest.raises(InputError, match="holds a whole Fisher, but the shard of a Fisher is needed"):
        load_part(tmp_path / "whole")
    with pytest.raises(InputError, match="holds the shard of a Fisher, but a whole Fisher is needed"):
        load_fisher(next(iter(found)))
