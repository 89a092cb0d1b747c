"""Which keys each recipe of views takes, and what a mistake says."""

import pytest
from pydantic import TypeAdapter, ValidationError

from anchored.plan.views import DinoViews, SceneViews, Views

ADAPTER = TypeAdapter(Views)


@pytest.mark.parametrize("value", [{}, {"flip": 0.5}, {"recipe": "scenes", "background_swap": 1.0}, SceneViews(blur=0.5)])
def test_views_without_a_recipe_are_scenes(value):
    """Configurations written before there was a choice stay valid."""
    assert isinstance(ADAPTER.validate_python(value), SceneViews)


def test_published_defaults_of_dino():
    """The values of the authors' code: 2 + 8 crops at 224 and 96 pixels, jitter (.4, .4, .2, .1), blur 1 / .1 / .5."""
    views = ADAPTER.validate_python({"recipe": "dino"})
    assert isinstance(views, DinoViews)
    assert (views.global_crops, views.local_crops, views.global_size, views.local_size) == (2, 8, 224, 96)
    assert (views.global_scale, views.local_scale) == ((0.4, 1.0), (0.05, 0.4))
    assert (views.flip, views.jitter, views.grey, views.solarize, views.blur) == (0.5, 0.8, 0.2, 0.2, (1.0, 0.1, 0.5))
    assert (views.brightness, views.contrast, views.saturation, views.hue) == (0.4, 0.4, 0.2, 0.1)


@pytest.mark.parametrize(
    ("value", "sentence"),
    [
        ({"recipe": "dion"}, "'scenes', 'dino'"),
        ({"recipe": ["dino"]}, "'scenes', 'dino'"),
        ({"recipe": "dino", "background_swap": 0.5}, "unknown key 'background_swap'"),
        ({"local_scales": [0.1, 0.2]}, "did you mean 'local_scale'?"),
        ({"recipe": "dino", "ratio": [1.3, 0.7]}, "the first number is the lower one"),
        ({"recipe": "dino", "hue": 0.6}, "less than or equal to 0.5"),
        ({"recipe": "dino", "blur": [1.0, 0.1]}, "blur"),
        ([1], "valid dictionary"),
    ],
)
def test_mistake_is_named(value, sentence):
    with pytest.raises(ValidationError) as caught:
        ADAPTER.validate_python(value)
    assert sentence in str(caught.value)
