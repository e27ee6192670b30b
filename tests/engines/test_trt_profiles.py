"""Profiles: every shape that is to be served is within one, and a graph that cannot serve it is refused by name."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ssd1b.engines.tensorrt.profiles import Profile, Range, Serving, profiles_for, unet_profiles
from ssd1b.sizes import SDXL_BUCKETS, Size

UNET = {
    "latents": ("batch", 4, "height", "width"),
    "timestep": ("batch",),
    "text": ("batch", "tokens", 2048),
    "time_ids": ("batch", 6),
    "slot": ("batch",),
    "a_640x640": ("slots", 12, 640, "rank"),
    "b_640x640": ("slots", 12, "rank", 640),
}
ranges = st.tuples(*[st.integers(1, 300)] * 3).map(lambda three: Range(*sorted(three)))
sizes = st.builds(Size, *[st.integers(8, 256).map(lambda n: n * 8)] * 2)
servings = st.builds(
    Serving,
    sizes=st.lists(sizes, min_size=1, max_size=9, unique=True).map(tuple),
    images=st.integers(4, 16),
    guided=st.booleans(),
    windows=st.integers(1, 4),
    slots=ranges,
    rank=ranges,
)


@given(serving=servings, per_size=st.booleans(), data=st.data())
def test_whatever_is_to_be_served_is_within_a_profile(serving, per_size, data):
    profiles = unet_profiles(serving, per_size=per_size)
    assert len(profiles) == (len(serving.sizes) if per_size else 1)
    size = data.draw(st.sampled_from(serving.sizes))
    lengths = {
        "batch": data.draw(st.integers(1, serving.images * (2 if serving.guided else 1))),
        "height": size.height // 8,
        "width": size.width // 8,
        "tokens": serving.window * data.draw(st.integers(1, serving.windows)),
        "slots": data.draw(st.integers(serving.slots.least, serving.slots.most)),
        "rank": data.draw(st.integers(serving.rank.least, serving.rank.most)),
    }
    assert any(profile.holds(lengths) for profile in profiles)
    assert not any(profile.holds(lengths | {"batch": serving.rows(serving.images) + 1}) for profile in profiles)


@given(serving=servings, per_size=st.booleans())
def test_shapes_are_ordered_and_keep_what_is_fixed(serving, per_size):
    for profile in unet_profiles(serving, per_size=per_size):
        for name, shapes in profile.shapes(UNET).items():
            axes = UNET[name]
            assert len(axes) == len(shapes.least) == len(shapes.usual) == len(shapes.most)
            for axis, low, usual, high in zip(axes, shapes.least, shapes.usual, shapes.most, strict=True):
                assert low <= usual <= high
                assert isinstance(axis, str) or low == high == axis


def test_the_nine_sizes_at_sixteen_pictures():
    profiles = unet_profiles(Serving(), per_size=True)
    assert len(profiles) == 9
    shapes = [profile.shapes(UNET)["latents"] for profile in profiles]
    assert {shape.most for shape in shapes} == {(32, 4, size.height // 8, size.width // 8) for size in SDXL_BUCKETS}
    assert {shape.least[0] for shape in shapes} == {1}
    (one,) = unet_profiles(Serving(), per_size=False)
    assert one.shapes(UNET)["latents"].least == (1, 4, 80, 80)
    assert one.shapes(UNET)["latents"].most == (32, 4, 192, 192)
    assert one.shapes(UNET)["text"].most == (32, 308, 2048)


def test_a_graph_that_lacks_an_axis_is_refused_by_name():
    fixed = UNET | {"latents": ("batch", 4, 128, 128)}
    with pytest.raises(ValueError, match=r"no dynamic axis 'height', which the profile wants as 80\.\.128\.\.192"):
        unet_profiles(Serving(), per_size=False)[0].shapes(fixed)
    one_size = Serving(sizes=(Size(1024, 1024),))
    assert unet_profiles(one_size, per_size=True)[0].shapes(fixed)["latents"].most == (32, 4, 128, 128)
    with pytest.raises(ValueError, match=r"no dynamic axis 'height', which the profile wants as 64\.\.64\.\.64"):
        unet_profiles(Serving(sizes=(Size(512, 1024),)), per_size=True)[0].shapes(fixed)
    with pytest.raises(ValueError, match="no range for the graph's axis frames"):
        unet_profiles(Serving(), per_size=False)[0].shapes(UNET | {"video": ("batch", "frames")})


def test_the_capacity_of_a_graph_may_be_fixed():
    fixed = UNET | {"a_640x640": (9, 12, 640, 8), "b_640x640": (9, 12, 8, 640)}
    (profile,) = profiles_for("unet", fixed, Serving(), per_size=False)
    assert profile.shapes(fixed)["a_640x640"].most == (9, 12, 640, 8)


def test_every_graph_of_a_bundle_has_profiles():
    pixels = {"pixels": ("batch", 3, "height", "width")}
    (encoder,) = profiles_for("vae_encoder", pixels, Serving(), per_size=True)
    assert encoder.shapes(pixels)["pixels"].most == (16, 3, 1536, 1536)
    latents = {"latents": ("batch", 4, "height", "width")}
    assert len(profiles_for("vae_decoder", latents, Serving(), per_size=True)) == 9
    tower = {"ids": ("batch", "tokens"), "slot": ("batch",), "a_768x768": ("slots", 4, 768, "rank")}
    (text,) = profiles_for("text_encoder_2", tower, Serving(images=2, windows=3), per_size=True)
    assert text.shapes(tower)["ids"].most == (12, 77)
    with pytest.raises(ValueError, match="no profiles for a graph named 'safety'"):
        profiles_for("safety", {}, Serving(), per_size=True)


@pytest.mark.parametrize("three", [t for t in product((0, 1, 2), repeat=3) if not 1 <= t[0] <= t[1] <= t[2]])
def test_a_range_out_of_order_is_refused(three):
    with pytest.raises(ValueError, match="least <= usual <= most"):
        Range(*three)


def test_equal_profiles_are_equal_in_any_order():
    one, two = {"a": Range(1, 1, 1), "b": Range(1, 2, 3)}, {"b": Range(1, 2, 3), "a": Range(1, 1, 1)}
    assert Profile.of(one) == Profile.of(two)


def test_a_size_off_the_grid_is_refused():
    with pytest.raises(ValueError, match="multiples of 8"):
        Serving(sizes=(Size(1020, 1024),))
