"""The convolution-shaped window: literal masks, and its definition in two axes."""

import numpy as np
import pytest

from keras_parti.layers.window import (
    conv_mask,
    window_length,
    window_mask,
    window_offsets,
)


def drawn(mask):
    """A mask as one can read it: a row a query, # where it sees the key."""
    return ["".join("#" if seen else "." for seen in row) for row in mask]


def test_a_kernel_of_3_with_wraparound():
    """Row 2 of the raster begins at the query of the eleventh line."""
    assert drawn(conv_mask(3, height=3, width=5)) == [
        "#..............",
        "##.............",
        ".##............",
        "..##...........",
        "#..##..........",
        "##..##.........",
        "###..##........",
        ".###..##.......",
        "..###..##......",
        "...###..##.....",
        "....###..##....",
        ".....###..##...",
        "......###..##..",
        ".......###..##.",
        "........###..##",
    ]


def test_a_kernel_of_3_cut_at_the_sides():
    assert drawn(conv_mask(3, height=4, width=3, wraparound=False)) == [
        "#...........",
        "##..........",
        ".##.........",
        "##.#........",
        "#####.......",
        ".##.##......",
        "...##.#.....",
        "...#####....",
        "....##.##...",
        "......##.#..",
        "......#####.",
        ".......##.##",
    ]


def test_a_kernel_of_5_is_a_whole_window_where_rows_have_4_tokens():
    """11 = 2 · 4 + 2 + 1 positions, without gaps: five columns fill rows of four."""
    expected = ["#" * (i + 1) + "." * (19 - i) for i in range(11)]
    expected += ["." * (i - 10) + "#" * 11 + "." * (19 - i) for i in range(11, 20)]
    assert drawn(conv_mask(5, height=5, width=4)) == expected


def test_a_kernel_of_5_cut_at_the_sides():
    assert drawn(conv_mask(5, height=5, width=4, wraparound=False)) == [
        "#...................",
        "##..................",
        "###.................",
        ".###................",
        "###.#...............",
        "######..............",
        "#######.............",
        ".###.###............",
        "###.###.#...........",
        "##########..........",
        "###########.........",
        ".###.###.###........",
        "....###.###.#.......",
        "....##########......",
        "....###########.....",
        ".....###.###.###....",
        "........###.###.#...",
        "........##########..",
        "........###########.",
        ".........###.###.###",
    ]


@pytest.mark.parametrize("wraparound", [True, False])
@pytest.mark.parametrize(("kernel", "height", "width"), [(5, 7, 11), (7, 5, 3)])
def test_the_mask_is_its_definition_in_two_dimensions(
    kernel, height, width, wraparound
):
    mask, radius = conv_mask(kernel, height, width, wraparound), kernel // 2
    expected = np.zeros_like(mask)
    for query in range(height * width):
        row, column = divmod(query, width)
        for dr in range(-radius, radius + 1):
            for dc in range(-radius, radius + 1):
                key = query + dr * width + dc
                inside = 0 <= row + dr < height and 0 <= column + dc < width
                if 0 <= key <= query and (wraparound or inside):
                    expected[query, key] = True
    np.testing.assert_array_equal(mask, expected)


def test_the_published_window_has_61_keys_within_5_rows_and_6_positions():
    assert window_length(11, 32) == 5 * 32 + 6
    assert len(window_offsets(11, 32)) == 61
    seen = conv_mask(11, 32, 32).sum(axis=1)
    assert seen.max() == 61
    assert seen.mean() == pytest.approx(55.8, abs=0.05)
    assert conv_mask(11, 32, 32, wraparound=False).sum(1).mean() == pytest.approx(
        51.1, abs=0.05
    )


@pytest.mark.parametrize("wraparound", [True, False])
def test_the_window_by_offset_is_the_mask(wraparound):
    mask = conv_mask(5, 7, 11, wraparound)
    window = window_mask(5, 11, wraparound)
    for query in range(7 * 11):
        for offset in range(query + 1):
            near = offset < window_length(5, 11) and window[query % 11, offset]
            assert mask[query, query - offset] == near


@pytest.mark.parametrize("kernel", [0, 4, -3, 3.0])
def test_a_kernel_without_a_centre_is_refused(kernel):
    with pytest.raises(
        ValueError, match="`kernel_size` must be an odd positive integer"
    ):
        window_length(kernel, 5)
