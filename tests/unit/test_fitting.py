"""What a document can hold."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given

from oncetask.errors import PayloadTooLarge
from oncetask.store import fitting
from oncetask.store.fitting import check_size, new_progress
from oncetask.task import Progress
from tests.support import T0
from tests.unit.test_document import json_values


class TestSize:
    """What still fits into a document."""

    LIMIT = 1_048_576 - 48 * 1_024

    def test_the_limit_is_exact(self) -> None:
        """A text that just fits is taken, with one more byte it is refused."""
        around = 32 + len("x") + 1 + 1 + 1  # the map, the name, the end of the text, the result's null
        check_size(data={"x": "a" * (self.LIMIT - around)})
        with pytest.raises(PayloadTooLarge, match=r"data takes 999,42\d bytes; .*999,424"):
            check_size(data={"x": "a" * (self.LIMIT - around + 1)})

    def test_data_and_result_share_it(self) -> None:
        """Half the room each is too much if one half is larger, and the larger one is named."""
        check_size(data={"x": "a" * 490_000}, result="b" * 490_000)
        with pytest.raises(PayloadTooLarge, match="result takes 520,001"):
            check_size(data={"x": "a" * 490_000}, result="b" * 520_000)

    def test_characters_count_with_their_bytes(self) -> None:
        """A text's size is that of its UTF-8, not the number of its characters."""
        check_size(data={"x": "a" * 400_000})
        with pytest.raises(PayloadTooLarge):
            check_size(data={"x": "€" * 400_000})

    def test_a_refusal_is_a_value_error_that_says_what_to_do(self) -> None:
        """The message names the field, the size, the limit and a way out."""
        with pytest.raises(ValueError, match="store it elsewhere and pass a reference"):
            check_size(data={"x": "a" * 2_000_000})

    @pytest.mark.parametrize(
        "value",
        [[{}] * 33_000, [{"a": {}}] * 33_000, [0] * 130_000, ["é"] * 350_000, {"a": [0.5] * 130_000}],
        ids=["maps", "maps in maps", "numbers", "texts", "floats"],
    )
    def test_what_takes_more_room_than_its_json_is_seen(self, value: Any) -> None:
        """Empty maps, numbers and the like take more bytes in Firestore than in JSON; no shortcut overlooks it."""
        with pytest.raises(PayloadTooLarge):
            check_size(data={"x": value})

    @given(json_values)
    def test_the_shortcut_is_never_wrong(self, value: Any) -> None:
        """No value takes more bytes in Firestore than the shortcut allows for each character of its JSON."""
        size = fitting._firestore_size(value)

        assert size <= fitting._MOST_BYTES_PER_CHARACTER * len(json.dumps(value)) + 32  # an empty map by itself


class TestNewProgress:
    """What a handler says of how far it is."""

    @pytest.mark.parametrize("fraction", [0, 1, 0.0, 0.5, 1.0, None])
    def test_fractions(self, fraction: float | None) -> None:
        """From 0 to 1, both included, or unknown; a whole number is kept as a float."""
        kept = new_progress(fraction, None, None, at=T0)

        assert kept == Progress(fraction, at=T0)
        assert fraction is None or type(kept.fraction) is float

    @pytest.mark.parametrize("fraction", [-0.1, 1.1, -5e-324, 1 + 2**-52, math.nan, math.inf, -math.inf, 10**400])
    def test_a_fraction_outside_is_refused(self, fraction: float) -> None:
        """A number that is no part of a whole raises ValueError, which names it."""
        with pytest.raises(ValueError, match="fraction must be a number from 0 to 1, or None, not "):
            new_progress(fraction, None, None, at=T0)

    @pytest.mark.parametrize("fraction", ["half", "0.5", True, False, [0.5], 1j])
    def test_a_fraction_of_another_type_is_refused(self, fraction: Any) -> None:
        """What is no number raises TypeError, which shows it; booleans are none."""
        with pytest.raises(TypeError, match="fraction must be a number from 0 to 1, or None, not ") as raised:
            new_progress(fraction, None, None, at=T0)
        assert repr(fraction) in str(raised.value)

    @pytest.mark.parametrize("message", [5, b"text", True, ["text"]])
    def test_a_message_is_a_text(self, message: Any) -> None:
        """Everything else raises TypeError."""
        with pytest.raises(TypeError, match="message must be a text, or None, not "):
            new_progress(None, message, None, at=T0)

    def test_a_message_is_cut_at_two_kib(self) -> None:
        """2,048 bytes are kept whole, one more is cut; never in the middle of a character, and half ones go."""
        assert new_progress(None, "x" * 2_048, None, at=T0).message == "x" * 2_048
        assert new_progress(None, "x" * 2_049, None, at=T0).message == "x" * 2_045 + "…"
        assert new_progress(None, "€" * 2_000, None, at=T0).message == "€" * 681 + "…"
        assert new_progress(None, "a\ud800b", None, at=T0).message == "a?b"

    @pytest.mark.parametrize(
        "data", [object(), {"x": object()}, {"x": math.nan}, math.inf, lambda: None], ids=lambda data: repr(data)[:12]
    )
    def test_data_without_a_json_form_are_refused(self, data: Any) -> None:
        """What JSON cannot hold raises TypeError, NaN and infinity among it."""
        with pytest.raises(TypeError, match=r"data, a \w+, must be something that JSON can hold"):
            new_progress(None, None, data, at=T0)

    def test_data_that_contain_themselves_are_refused(self) -> None:
        """A circle raises TypeError too."""
        circle: list[Any] = []
        circle.append(circle)

        with pytest.raises(TypeError, match="must be something that JSON can hold"):
            new_progress(None, None, circle, at=T0)

    @pytest.mark.parametrize(
        ("largest", "larger"),
        [
            ("a" * 8_191, "a" * 8_192),
            ("€" * 2_730, "€" * 2_731),
            ({"x": "a" * 8_157}, {"x": "a" * 8_158}),
            ([0] * 1_024, [0] * 1_025),
            ([["a" * 8_186]], [["a" * 8_189]]),
        ],
        ids=["text", "bytes", "map", "numbers", "json"],
    )
    def test_data_may_take_eight_kib(self, largest: Any, larger: Any) -> None:
        """What takes 8,192 bytes is kept, more raises PayloadTooLarge, which names both sizes and a way out."""
        assert new_progress(None, None, largest, at=T0).data == largest
        with pytest.raises(PayloadTooLarge, match=r"data takes 8,\d{3} bytes; .* 8,192: pass a reference"):
            new_progress(None, None, larger, at=T0)
