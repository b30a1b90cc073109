"""Kinds, ids and keys, and what a payload's way to the store and back may change: nothing."""

from __future__ import annotations

import json
import math
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum
from functools import cached_property
from hashlib import sha256
from typing import Any, Generic, TypeVar
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Field,
    PrivateAttr,
    SecretStr,
    create_model,
    field_serializer,
    field_validator,
)

from oncetask.errors import InvalidPayload, OncetaskError
from oncetask.payload import Payload, check_kind, check_resource_key, check_task_id, derive_task_id, kind_of

T = TypeVar("T")


class Greet(Payload):
    """A payload with nothing special about it."""

    name: str = "Ada"


class TestKind:
    """The name that joins a payload to its handler."""

    @pytest.mark.parametrize(
        ("class_name", "kind"),
        [
            ("SendEmail", "send-email"),
            ("Sync", "sync"),
            ("HTTPServer", "http-server"),
            ("ParseJSONFile", "parse-json-file"),
            ("UserID", "user-id"),
            ("Send_Email", "send-email"),
            ("_Private", "private"),
            ("X9", "x-9"),
            ("already", "already"),
        ],
    )
    def test_a_kind_defaults_to_the_class_name_in_kebab_case(self, class_name: str, kind: str) -> None:
        """Words, acronyms and numbers of a class name become the parts of its kind."""
        assert create_model(class_name, __base__=Payload).kind == kind

    def test_a_given_kind_is_taken_as_it_is(self) -> None:
        """A kind that is named wins over the class's name."""

        class Renamed(Payload, kind="mail.v2_final-1"):
            pass

        assert Renamed.kind == "mail.v2_final-1"

    def test_a_kind_is_not_inherited(self) -> None:
        """A subclass of a payload is of another kind."""

        class Base(Payload, kind="base-kind"):
            pass

        class Derived(Base):
            pass

        assert Derived.kind == "derived"

    @pytest.mark.parametrize("kind", ["a", "7", "a.b_c-d", "z" * 100])
    def test_kinds_that_are_right(self, kind: str) -> None:
        """A kind has 1 to 100 of the allowed characters and starts with a letter or digit."""
        assert check_kind(kind) == kind

    @pytest.mark.parametrize(
        "kind", ["", "z" * 101, "A", "a b", "a/b", "-a", ".a", "_a", "é", "a\n", "\na", "a:b", None, 5, b"a"]
    )
    def test_kinds_that_are_wrong(self, kind: Any) -> None:
        """Any other kind is refused, and the message shows it."""
        with pytest.raises(ValueError, match="kind must be 1 to 100") as caught:
            check_kind(kind)

        assert str(caught.value).endswith(repr(kind))

    def test_a_wrong_kind_is_refused_when_the_class_is_made(self) -> None:
        """A spelling mistake in a kind shows at import, not at enqueue."""
        with pytest.raises(ValueError, match="'Send Email'"):

            class Wrong(Payload, kind="Send Email"):
                pass

    @pytest.mark.parametrize("class_name", ["Übung", "Größe", "Отчёт"])
    def test_letters_are_never_left_out_of_a_kind(self, class_name: str) -> None:
        """A class name beyond ASCII needs a kind of its own: dropping letters could join two classes."""
        with pytest.raises(ValueError, match=class_name):
            create_model(class_name, __base__=Payload)

        assert create_model(class_name, __base__=Payload, __cls_kwargs__={"kind": "other"}).kind == "other"

    def test_a_class_stands_for_its_kind(self) -> None:
        """Where a kind is asked for, a name and a payload class are as good."""
        assert kind_of(Greet) == kind_of("greet") == "greet"

    @pytest.mark.parametrize("wrong", [None, 5, Greet(), BaseModel, dict])
    def test_other_things_stand_for_no_kind(self, wrong: Any) -> None:
        """An instance, another class or a number is refused with TypeError."""
        with pytest.raises(TypeError, match="kind must be a name or a Payload class"):
            kind_of(wrong)


class TestGenerics:
    """Payloads with type parameters."""

    def test_a_generic_payload_has_no_kind(self) -> None:
        """Neither the generic class nor what its brackets give is a kind."""

        class Box(Payload, Generic[T]):
            content: T

        for cls in (Box, Box[int]):
            with pytest.raises(TypeError, match="has no kind of its own"):
                kind_of(cls)
        with pytest.raises(TypeError, match="has no kind of its own"):
            Box[int](content=1).to_data()

    def test_a_subclass_of_a_generic_payload_has_a_kind(self) -> None:
        """What names the type parameter is a payload like any other."""

        class Box(Payload, Generic[T]):
            content: T

        class IntBox(Box[int]):
            pass

        class TextBox(Box[str], kind="text"):
            pass

        assert IntBox.kind == "int-box"
        assert TextBox.kind == "text"
        assert IntBox.from_data(IntBox(content=3).to_data()).content == 3


class TestReservedNames:
    """Names that belong to Payload."""

    RESERVED = ("kind", "idempotency_key", "resource_key", "wait_until", "recurrence")

    @pytest.mark.parametrize("name", RESERVED)
    def test_a_field_may_not_hide_a_method(self, name: str) -> None:
        """A field with a name that Payload uses is refused when the class is made, and an alias suggested."""
        with pytest.raises(TypeError, match=rf'Wrong may not have a field {name!r}.*Field\(alias="{name}"\)'):
            create_model("Wrong", __base__=Payload, **{name: (str, "x")})  # type: ignore[call-overload]

    @pytest.mark.parametrize("name", RESERVED)
    def test_nor_may_a_field_of_a_mixin(self, name: str) -> None:
        """A field that comes from another base hides a method just as well."""
        mixin = create_model("Mixin", **{name: (str, "x")})  # type: ignore[call-overload]
        with pytest.raises(TypeError, match=f"Wrong may not have a field {name!r}"):
            type("Wrong", (mixin, Payload), {})

    def test_a_kind_in_the_class_body_is_refused(self) -> None:
        """`kind = "x"` in the body would be overwritten, so it is refused."""
        with pytest.raises(TypeError, match="a kind is given as class Wrong"):
            type("Wrong", (Payload,), {"kind": "x"})

    def test_the_alias_that_is_suggested_works(self) -> None:
        """A wire name that is reserved is kept with an alias."""

        class Meeting(Payload):
            kind_of_meeting: str = Field(alias="kind")
            until: str = Field(alias="wait_until")

        meeting = Meeting.model_validate({"kind": "daily", "wait_until": "noon"})

        assert meeting.to_data() == {"kind": "daily", "wait_until": "noon"}
        assert Meeting.kind == "meeting"
        assert meeting.wait_until() is None

    def test_methods_may_be_overridden(self) -> None:
        """Methods of those names are what the names are for."""

        class Sync(Payload):
            user: str

            def idempotency_key(self) -> str:
                return f"sync-{self.user}"

            def resource_key(self) -> str:
                return self.user

        assert Sync(user="ada").idempotency_key() == "sync-ada"
        assert Sync(user="ada").resource_key() == "ada"


class Colour(Enum):
    """An enum of texts."""

    RED = "red"


class Level(IntEnum):
    """An enum of numbers."""

    HIGH = 3


class Address(BaseModel):
    """A model inside of payloads."""

    street: str
    tags: set[str] = set()


class Everything(Payload):
    """A strict payload with a field of every type that JSON does not have."""

    model_config = ConfigDict(strict=True)

    numbers: set[int]
    pair: tuple[int, str]
    many: tuple[float, ...]
    frozen: frozenset[str]
    instant: datetime
    day: date
    hour: time
    span: timedelta
    price: Decimal
    number: UUID
    raw: bytes
    colour: Colour
    level: Level
    address: Address
    book: dict[str, list[Address]]
    by_number: dict[int, str]
    maybe: int | None
    either: int | str
    huge: int


def _everything(**changes: Any) -> Everything:
    values: dict[str, Any] = {
        "numbers": {3, 1, 2},
        "pair": (1, "a"),
        "many": (0.1, 0.2, -0.0),
        "frozen": frozenset({"x", "y"}),
        "instant": datetime(2030, 1, 1, 12, 30, 15, 123456, tzinfo=UTC),
        "day": date(2030, 2, 28),
        "hour": time(23, 59, 59, 999999),
        "span": timedelta(days=1, microseconds=1),
        "price": Decimal("1.10"),
        "number": UUID(int=7),
        "raw": b"raw",
        "colour": Colour.RED,
        "level": Level.HIGH,
        "address": Address(street="Main", tags={"a"}),
        "book": {"ada": [Address(street="Side")]},
        "by_number": {1: "one"},
        "maybe": None,
        "either": "1",
        "huge": 2**200,
    }
    return Everything(**{**values, **changes})


class TestRoundTrip:
    """What is enqueued is what the handler gets."""

    def test_a_strict_model_with_rich_types_comes_back_equal(self) -> None:
        """Sets, tuples, times, decimals, enums, bytes, nested models and huge integers survive, strict or not."""
        payload = _everything()

        data = payload.to_data()

        assert Everything.from_data(json.loads(json.dumps(data))) == payload

    def test_the_data_is_plain_json(self) -> None:
        """What is stored consists of maps, lists, texts, numbers, booleans and nulls only."""

        def kinds_of(value: Any) -> set[type]:
            if isinstance(value, dict):
                return {dict}.union(*map(kinds_of, value), *map(kinds_of, value.values()))
            return {list}.union(*map(kinds_of, value)) if isinstance(value, list) else {type(value)}

        assert kinds_of(_everything().to_data()) <= {dict, list, str, int, float, bool, type(None)}

    @given(
        numbers=st.sets(st.integers(-(10**30), 10**30), max_size=4),
        many=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=4).map(tuple),
        instant=st.datetimes(  # offsets had seconds before, which no text form of a time keeps
            min_value=datetime(1900, 1, 1),  # noqa: DTZ001  # hypothesis adds the zone
            timezones=st.sampled_from([UTC, ZoneInfo("Europe/Berlin"), ZoneInfo("America/New_York")]),
        ),
        span=st.timedeltas(timedelta(-(10**6)), timedelta(10**6)),
        price=st.decimals(allow_nan=False, allow_infinity=False),
        either=st.one_of(st.integers(), st.text(st.characters(exclude_categories=["Cs"]))),
        by_number=st.dictionaries(st.integers(), st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    )
    def test_any_values_survive(self, **values: Any) -> None:
        """Whatever stands in the fields, nothing that survives is refused and nothing changes on the way."""
        payload = _everything(**values)

        back = Everything.from_data(payload.to_data())

        assert {**back.__dict__, "instant": back.instant.astimezone(UTC)} == {
            **payload.__dict__,
            "instant": payload.instant.astimezone(UTC),
        }

    @pytest.mark.parametrize("fold", [0, 1])
    @pytest.mark.parametrize(("month", "day"), [pytest.param(10, 27, id="repeated"), pytest.param(3, 31, id="skipped")])
    def test_the_hour_that_a_zone_repeats_or_skips_survives(self, month: int, day: int, fold: int) -> None:
        """An instant in that hour equals none of another zone in Python, and is stored all the same."""
        instant = datetime(2030, month, day, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=fold)

        class Meeting(Payload):
            starts: datetime
            breaks: dict[str, list[datetime]]

        meeting = Meeting(starts=instant, breaks={"coffee": [instant]})

        assert Meeting.from_data(meeting.to_data()).starts == instant.astimezone(UTC)

    def test_aliases_are_the_wire_names(self) -> None:
        """A field with an alias is stored, and found again, under it."""

        class Aliased(Payload):
            user_id: str = Field(alias="userId")

        assert Aliased(userId="u1").to_data() == {"userId": "u1"}

    def test_extra_fields_survive_where_they_are_allowed(self) -> None:
        """A model that allows extra fields gets them back, also those named like Payload's own methods."""

        class Open(Payload):
            model_config = ConfigDict(extra="allow")

        payload = Open.model_validate({"a": [1], "kind": "x"})

        assert payload.to_data() == {"a": [1], "kind": "x"}

    def test_what_was_computed_on_the_side_is_no_field(self) -> None:
        """A cached property and a private attribute are no part of a payload and do not hinder it."""

        class Cached(Payload):
            name: str
            _seen: int = PrivateAttr(0)

            @cached_property
            def upper(self) -> str:
                return self.name.upper()

        payload = Cached(name="ada")
        payload._seen = 7

        assert payload.upper == "ADA"
        assert payload.to_data() == {"name": "ada"}

    def test_a_secret_that_is_written_in_full_survives(self) -> None:
        """A secret with a serialiser of its own is stored as that says."""

        class Login(Payload):
            password: SecretStr

            @field_serializer("password", when_used="json")
            def _plain(self, value: SecretStr) -> str:
                return value.get_secret_value()

        assert Login(password=SecretStr("hunter2")).to_data() == {"password": "hunter2"}


class Deeper(Address):
    """An address with a field of its own."""

    floor: int = 1


class TestRefusedPayloads:
    """What would come back different, or not at all, is refused, and the message names the field."""

    @staticmethod
    def _refused(payload: Payload, match: str) -> None:
        with pytest.raises(InvalidPayload, match=match) as caught:
            payload.to_data()
        assert isinstance(caught.value, ValueError)
        assert isinstance(caught.value, OncetaskError)

    def test_a_masked_secret(self) -> None:
        """A secret is written as asterisks: the refusal names its field, and never shows it."""

        class Login(Payload):
            user: str
            password: SecretStr

        self._refused(Login(user="ada", password=SecretStr("hunter2")), "different in: password$")

    def test_a_masked_secret_inside_of_another_model(self) -> None:
        """The mask is seen in nested models, lists and maps as well."""

        class Account(BaseModel):
            token: SecretStr

        class Logins(Payload):
            accounts: dict[str, list[Account]]

        self._refused(Logins(accounts={"a": [Account(token=SecretStr("x"))]}), "different in: accounts")

    def test_an_excluded_field_that_has_a_value(self) -> None:
        """An excluded field may stand at its default; a value would be lost."""

        class Partial(Payload):
            name: str = "a"
            note: str = Field(default="none", exclude=True)

        assert Partial(name="b").to_data() == {"name": "b"}
        self._refused(Partial(note="important"), "different in: note")

    def test_an_alias_that_only_one_direction_knows(self) -> None:
        """Different names for writing and reading cannot be read back."""

        class OneWay(Payload):
            name: str = Field(validation_alias="nameIn", serialization_alias="nameOut")

        class Choices(Payload):
            name: str = Field(validation_alias=AliasChoices("a", "b"))

        self._refused(OneWay.model_validate({"nameIn": "x"}), "nameIn: Field required")
        self._refused(Choices.model_validate({"a": "x"}), "cannot be read back")

    @pytest.mark.parametrize(
        "value", [{1, 2}, (1, 2), datetime(2030, 1, 1, tzinfo=UTC), Decimal(1), {1: 2}, b"x", math.nan, [{3}]], ids=repr
    )
    def test_a_rich_value_in_an_untyped_field(self, value: Any) -> None:
        """JSON does not tell a set from a list, and an untyped field cannot ask for it."""

        class Untyped(Payload):
            anything: Any

        self._refused(Untyped(anything=value), "different in: anything")

    def test_a_subclass_in_a_field_of_its_base(self) -> None:
        """The fields that only the subclass has would be lost."""

        class Move(Payload):
            to: Address

        self._refused(Move(to=Deeper(street="Main")), "different in: to")

    @pytest.mark.parametrize(
        "value", [object(), b"\xff", 10**5_000, "\ud800"], ids=["object", "bytes", "number", "half a surrogate pair"]
    )
    def test_what_json_cannot_hold(self, value: Any) -> None:
        """Objects, bytes that are no text, numbers beyond all bounds and broken text are refused."""

        class Untyped(Payload):
            anything: Any

        self._refused(Untyped(anything=value), "kind 'untyped' cannot be")

    def test_a_list_that_contains_itself(self) -> None:
        """A circle has no JSON form."""

        class Untyped(Payload):
            anything: Any

        circle: list[Any] = []
        circle.append(circle)
        self._refused(Untyped(anything=circle), "cannot be written as JSON")

    def test_one_that_was_made_invalid(self) -> None:
        """What was constructed without validation is validated at the latest here."""

        class Order(Payload):
            amount: int = Field(ge=1)

        self._refused(Order.model_construct(amount=0), "cannot be read back .*amount: Input should be greater than")

    def test_a_serialiser_that_raises(self) -> None:
        """Whatever a serialiser raises becomes a refusal with its message."""

        class Broken(Payload):
            name: str = "a"

            @field_serializer("name")
            def _boom(self, value: str) -> str:
                raise LookupError("no such serialiser")

        self._refused(Broken(), "no such serialiser")


class TestFromData:
    """Reading what is stored."""

    def test_every_problem_names_its_field_and_value(self) -> None:
        """The message tells each field that does not fit, what was there and what would be right."""

        class Order(Payload):
            amount: int
            address: Address

        with pytest.raises(InvalidPayload) as caught:
            Order.from_data({"amount": "many", "address": {"street": 7}})

        message = str(caught.value)
        assert "data does not fit Order (kind 'order')" in message
        assert "amount: Input should be a valid integer" in message
        assert "(was 'many')" in message
        assert "address.street: Input should be a valid string" in message
        assert "(was 7)" in message

    def test_long_values_are_cut_in_messages(self) -> None:
        """A megabyte in the wrong field does not become a megabyte of message."""
        with pytest.raises(InvalidPayload) as caught:
            Greet.from_data({"name": ["x" * 10**6]})

        assert len(str(caught.value)) < 300

    @pytest.mark.parametrize(
        "value", [{1}, datetime(2030, 1, 1, tzinfo=UTC), b"x", object()], ids=["set", "instant", "bytes", "object"]
    )
    def test_what_only_another_writer_could_have_stored(self, value: Any) -> None:
        """Firestore's own types in a map that somebody else wrote are an invalid payload, no crash."""
        with pytest.raises(InvalidPayload, match="data of kind 'greet' holds what JSON cannot"):
            Greet.from_data({"name": value})

    def test_unknown_fields_are_ignored_unless_the_model_forbids_them(self) -> None:
        """A newer writer's field does not stop an older reader, if the model does not say otherwise."""

        class Closed(Payload):
            model_config = ConfigDict(extra="forbid")

        assert Greet.from_data({"name": "Bob", "newer": 1}).name == "Bob"
        with pytest.raises(InvalidPayload, match=r"newer: Extra inputs are not permitted \(was 1\)"):
            Closed.from_data({"newer": 1})

    def test_strict_models_read_json(self) -> None:
        """Strict means strict JSON: texts for times are right, texts for numbers are not."""
        data = _everything().to_data()

        with pytest.raises(InvalidPayload, match="huge"):
            Everything.from_data({**data, "huge": "7"})

    def test_a_validator_may_refuse(self) -> None:
        """What a validator says stands in the message."""

        class Even(Payload):
            n: int

            @field_validator("n")
            @classmethod
            def _even(cls, n: int) -> int:
                if n % 2:
                    raise ValueError("must be even")
                return n

        with pytest.raises(InvalidPayload, match=r"n: Value error, must be even \(was 3\)"):
            Even.from_data({"n": 3})


class TestTaskId:
    """Ids that both stores take."""

    @pytest.mark.parametrize(
        "task_id", ["a", "greet:ada", "Ü", " ", "a.b", "__a", "a__", "___", "x" * 1_500, "é" * 750]
    )
    def test_ids_that_are_right(self, task_id: str) -> None:
        """Any text that Firestore takes as a document id is one, up to 1,500 bytes."""
        assert check_task_id(task_id) == task_id

    @pytest.mark.parametrize(
        "task_id",
        ["", ".", "..", "a/b", "/", "____", "__a__", "a\nb", "\x00", "x" * 1_501, "é" * 751, "\ud800", None, 5, b"a"],
        ids=lambda task_id: ascii(task_id)[:12],
    )
    def test_ids_that_are_wrong(self, task_id: Any) -> None:
        """What one of the stores would refuse or take for something else is refused before."""
        with pytest.raises(ValueError, match=r"^task_id m") as caught:
            check_task_id(task_id)

        assert len(str(caught.value)) < 250


class TestResourceKey:
    """Keys that both stores take."""

    @pytest.mark.parametrize("key", [None, "a", "user:1/x", "x" * 1_000, "é" * 500, "\n"])
    def test_keys_that_are_right(self, key: str | None) -> None:
        """Any text up to 1,000 bytes is a key, and None means that there is none."""
        assert check_resource_key(key) == key

    @pytest.mark.parametrize(
        "key", ["", "x" * 1_001, "é" * 501, "\udfff", 5, b"a", True], ids=lambda key: ascii(key)[:12]
    )
    def test_keys_that_are_wrong(self, key: Any) -> None:
        """An empty, longer, broken or untextual key is refused."""
        with pytest.raises(ValueError, match=r"^resource_key must be None or a text of 1 to 1000 bytes"):
            check_resource_key(key)


class TestDerivedId:
    """Ids made of idempotency keys."""

    def test_a_readable_key_stays_readable(self) -> None:
        """Kind and key make an id that people can read, where Firestore takes it."""
        assert derive_task_id("greet", "ada@example.org") == "greet:ada@example.org"
        assert derive_task_id("greet", "a b") == "greet:a b"

    @pytest.mark.parametrize("key", ["a/b", "a\nb", "\x00", "x" * 195])
    def test_any_other_key_is_hashed(self, key: str) -> None:
        """A slash, a control character or a key too long for an id gives the key's SHA-256."""
        assert derive_task_id("greet", key) == f"greet:{sha256(key.encode()).hexdigest()}"

    def test_two_hundred_characters_are_the_most(self) -> None:
        """An id of 200 characters is readable, one of 201 is hashed."""
        assert derive_task_id("greet", "x" * 194) == "greet:" + "x" * 194
        assert derive_task_id("greet", "x" * 195) != "greet:" + "x" * 195

    @pytest.mark.parametrize("key", ["", None, 5, "\ud800"], ids=ascii)
    def test_wrong_keys_are_refused(self, key: Any) -> None:
        """An empty, broken or untextual key is refused, and the message names the argument."""
        with pytest.raises(ValueError, match=r"^idempotency_key must be None or a text"):
            derive_task_id("greet", key)

    @given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
    def test_every_key_gives_a_valid_id(self, key: str) -> None:
        """Whatever the key is, the id is one that both stores take, and always the same."""
        task_id = derive_task_id("greet", key)

        assert check_task_id(task_id) == task_id == derive_task_id("greet", key)
        assert len(task_id) <= 200


@pytest.mark.parametrize("number", [float("inf"), float("-inf"), float("nan")])
def test_numbers_that_json_has_no_word_for_are_refused(number: float) -> None:
    """Infinity and NaN are refused when they are enqueued, not when somebody else reads the task."""

    class Measured(Payload):
        value: float

    with pytest.raises(InvalidPayload, match="measured"):
        Measured(value=number).to_data()


def test_values_can_be_kept_out_of_messages() -> None:
    """A payload with `hide_input_in_errors` names its wrong field, not the value."""

    class Login(Payload):
        model_config = ConfigDict(hide_input_in_errors=True)
        password: int

    with pytest.raises(InvalidPayload, match="password") as caught:
        Login.from_data({"password": "hunter2"})
    assert "hunter2" not in str(caught.value)
