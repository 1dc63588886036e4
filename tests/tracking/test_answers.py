import numpy as np
import pytest

from tracking.answers import pack_answers, unpack_answers


def test_the_first_image_is_the_highest_bit_of_the_first_byte() -> None:
    correct = np.array([True, False, False, True, False, False, False, False, True])
    assert pack_answers(correct) == "9080"


@pytest.mark.parametrize("images", [1, 8, 9, 10_000])
def test_what_is_packed_comes_back(images: int) -> None:
    correct = np.random.default_rng(0).random(images) < 0.7
    text = pack_answers(correct)
    assert len(text) == 2 * -(-images // 8)
    assert np.array_equal(unpack_answers(text, images), correct)


def test_answers_of_another_number_of_images_are_refused() -> None:
    with pytest.raises(ValueError, match="1 bytes do not hold 9 answers"):
        unpack_answers("90", 9)
