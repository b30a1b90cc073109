"""What an App registers, and what it refuses."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any

import pytest

from oncetask import (
    App,
    Client,
    Context,
    ExponentialBackoff,
    FixedDelay,
    HandlerAlreadyRegistered,
    NoRetry,
    Payload,
    UnknownKind,
    Worker,
)
from oncetask.store.sqlite import SqliteStore
from tests.support import a_task, at


class Mail(Payload, kind="mail"):
    """What is handled."""

    to: str = "ada"


class Report(Payload, kind="report"):
    """A second kind."""


async def send(_: Context, __: Any) -> None:
    """A handler."""


def send_in_a_thread(_: Context, __: Any) -> None:
    """A plain one."""


async def undo(_: Context, __: Any) -> None:
    """A cancellation handler."""


def undo_in_a_thread(_: Context, __: Any) -> None:
    """A plain one."""


REGISTERS: dict[str, Callable[[App], Callable[..., Callable[[Any], Any]]]] = {
    "handler": lambda app: app.handler,
    "batch_handler": lambda app: app.batch_handler,
    "cancellation_handler": lambda app: app.cancellation_handler,
}
"""The decorators for functions of one kind."""

ALL = pytest.mark.parametrize("decorator", REGISTERS)


class TestDecorators:
    """What holds for all three."""

    @ALL
    @pytest.mark.parametrize("function", [send, send_in_a_thread], ids=["async", "def"])
    def test_the_function_is_given_back_unchanged(self, decorator: str, function: Callable[..., Any]) -> None:
        """What is decorated can be called in tests as before."""
        before = dict(vars(function))
        assert REGISTERS[decorator](App())(Mail)(function) is function
        assert vars(function) == before

    @ALL
    def test_a_second_one_of_a_kind_is_refused(self, decorator: str) -> None:
        """One kind has one of each; the error names kind and App, and the first one stays."""
        app = App("mails")
        REGISTERS[decorator](app)(Mail)(send)
        with pytest.raises(HandlerAlreadyRegistered, match=r"'mail' has a .*handler already in app 'mails'"):
            REGISTERS[decorator](app)(Mail)(undo)
        app.handler(Report)(send)
        if decorator != "cancellation_handler":
            assert app.handlers()["mail"].function is send

    @ALL
    @pytest.mark.parametrize("value", ["30", [1], True, object()])
    def test_a_timeout_that_is_no_duration_is_refused(self, decorator: str, value: Any) -> None:
        """The message names the field and the value."""
        with pytest.raises(TypeError) as refused:
            REGISTERS[decorator](App())(Mail, timeout=value)
        assert "timeout" in str(refused.value)
        assert repr(value) in str(refused.value)

    @ALL
    @pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), timedelta(0), 10**400])
    def test_a_timeout_out_of_range_is_refused(self, decorator: str, value: Any) -> None:
        """The message names the field and the value."""
        with pytest.raises(ValueError, match="timeout") as refused:
            REGISTERS[decorator](App())(Mail, timeout=value)
        assert repr(value) in str(refused.value)

    @ALL
    @pytest.mark.parametrize("value", [3, "ExponentialBackoff", NoRetry])
    def test_a_retry_that_is_no_policy_is_refused(self, decorator: str, value: Any) -> None:
        """The message names the field and the value, and what would be right."""
        with pytest.raises(TypeError, match=r"retry.*ExponentialBackoff\(\)") as refused:
            REGISTERS[decorator](App())(Mail, retry=value)
        assert repr(value) in str(refused.value)

    @ALL
    @pytest.mark.parametrize("value", [None, "send", 7])
    def test_what_cannot_be_called_is_refused(self, decorator: str, value: Any) -> None:
        """Only a function can be registered; the message names the kind and the value."""
        with pytest.raises(TypeError, match="'mail'") as refused:
            REGISTERS[decorator](App())(Mail)(value)
        assert repr(value) in str(refused.value)

    @ALL
    def test_a_generator_is_refused(self, decorator: str) -> None:
        """A function that yields would never be run to its end."""

        async def yielding(_: Context, __: Any) -> Any:
            yield 1

        def yielding_in_a_thread(_: Context, __: Any) -> Any:
            yield 1

        for function in (yielding, yielding_in_a_thread):
            with pytest.raises(TypeError, match="'mail'"):
                REGISTERS[decorator](App())(Mail)(function)

    @ALL
    @pytest.mark.parametrize("value", [str, Mail(), 7, None])
    def test_what_is_no_payload_class_is_refused(self, decorator: str, value: Any) -> None:
        """The message names the value."""
        with pytest.raises(TypeError) as refused:
            REGISTERS[decorator](App())(value)
        assert repr(value) in str(refused.value)

    @ALL
    def test_a_refused_function_leaves_nothing(self, decorator: str) -> None:
        """After a mistake the right function can still be registered."""
        app = App()
        with pytest.raises(TypeError):
            REGISTERS[decorator](app)(Mail)(None)
        REGISTERS[decorator](app)(Mail)(send)


@pytest.mark.parametrize("register", [App.handler, App.batch_handler, App.cancellation_handler])
def test_a_name_is_no_payload_class(register: Callable[..., object]) -> None:
    """A decorator that gets a kind's name instead of the class says so at once."""
    with pytest.raises(TypeError, match="'send-email'"):
        register(App(), "send-email")


class TestLimits:
    """Numbers that are the decorator's own."""

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    @pytest.mark.parametrize("value", [0, -1, 1.5, "10", True])
    def test_a_concurrency_that_is_no_count_is_refused(self, decorator: str, value: Any) -> None:
        """The message names the field and the value."""
        with pytest.raises(ValueError, match="concurrency must be a whole number, 1 or more") as refused:
            REGISTERS[decorator](App())(Mail, concurrency=value)
        assert repr(value) in str(refused.value)

    @pytest.mark.parametrize("value", [0, -1, 1.5, "10", True, None])
    def test_a_max_batch_that_is_no_count_is_refused(self, value: Any) -> None:
        """The message names the field and the value."""
        with pytest.raises(ValueError, match="max_batch must be a whole number, 1 or more") as refused:
            App().batch_handler(Mail, max_batch=value)
        assert repr(value) in str(refused.value)

    @pytest.mark.parametrize(("value", "message"), [(0, "1 or more"), (2.5, "1 or more"), (101, "at most 100")])
    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    def test_a_priority_that_is_no_share_is_refused(self, decorator: str, value: Any, message: str) -> None:
        """The message names the field, the value and the bound."""
        with pytest.raises(ValueError, match=f"priority must be .*{message}, not {value}"):
            REGISTERS[decorator](App())(Mail, priority=value)

    def test_a_batch_that_no_commit_holds_is_refused(self) -> None:
        """Four hundred are possible, and one more is not."""
        App().batch_handler(Mail, max_batch=400)
        with pytest.raises(ValueError, match="max_batch must be at most 400, not 401"):
            App().batch_handler(Mail, max_batch=401)

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    def test_an_order_is_strict_or_not(self, decorator: str) -> None:
        """Anything else than True and False is refused, since it may have been meant for something else."""
        with pytest.raises(TypeError, match="strict_order must be True or False, not 'yes'"):
            REGISTERS[decorator](App())(Mail, strict_order="yes")

    @pytest.mark.parametrize("value", ["30", 0, -1])
    def test_a_bad_default_is_refused_too(self, value: Any) -> None:
        """An App's own timeout is checked where it is given."""
        with pytest.raises((TypeError, ValueError), match="timeout") as refused:
            App(timeout=value)
        assert repr(value) in str(refused.value)


REFUSES: dict[str, Callable[..., object]] = {
    "App": App,
    "handler": lambda **options: App().handler(Mail, **options),
    "batch_handler": lambda **options: App().batch_handler(Mail, **options),
}
"""What takes a deadline."""


class TestDeadlines:
    """The instant after which no task of a kind runs any more."""

    def test_without_one_there_is_none(self) -> None:
        """Left out of handler and App, a kind has no deadline."""
        app = App()
        app.handler(Mail)(send)
        app.batch_handler(Report)(send)
        assert [handler.deadline for handler in app.handlers().values()] == [None, None]

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    def test_what_is_left_out_is_the_apps(self, decorator: str) -> None:
        """A handler without a deadline has its App's."""
        app = App(deadline=at(60))
        REGISTERS[decorator](app)(Mail)(send)
        assert app.handlers()["mail"].deadline == at(60)

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    @pytest.mark.parametrize("own", [at(30), at(90), datetime(2000, 1, 1, tzinfo=UTC)])
    def test_the_handlers_own_wins(self, decorator: str, own: datetime) -> None:
        """What a decorator says holds for its kind, be it earlier, later or past."""
        app = App(deadline=at(60))
        REGISTERS[decorator](app)(Mail, deadline=own)(send)
        app.handler(Report)(send)
        assert [handler.deadline for handler in app.handlers().values()] == [own, at(60)]

    def test_an_included_app_keeps_its_own(self) -> None:
        """The deadline of the App around it is not an included handler's."""
        outer, early, free = App("outer", deadline=at(60)), App("early", deadline=at(30)), App("free")
        early.handler(Mail)(send)
        free.handler(Report)(send)
        outer.include(early)
        outer.include(free)
        assert {kind: handler.deadline for kind, handler in outer.handlers().items()} == {
            "mail": at(30),
            "report": None,
        }

    @pytest.mark.parametrize("place", REFUSES)
    def test_it_may_be_of_any_zone(self, place: str) -> None:
        """It is kept in UTC."""
        there = at(60).astimezone(timezone(timedelta(hours=5)))
        app = App(deadline=there if place == "App" else None)
        options = {} if place == "App" else {"deadline": there}
        REGISTERS["handler" if place == "App" else place](app)(Mail, **options)(send)
        deadline = app.handlers()["mail"].deadline
        assert (deadline, deadline and deadline.tzinfo) == (at(60), UTC)

    @pytest.mark.parametrize("place", REFUSES)
    def test_a_naive_one_is_refused(self, place: str) -> None:
        """The message names the field and the value, and what would be right."""
        naive = datetime(2030, 1, 1)  # noqa: DTZ001  # what is refused
        with pytest.raises(ValueError, match=r"deadline must be aware .*tzinfo=UTC") as refused:
            REFUSES[place](deadline=naive)
        assert repr(naive) in str(refused.value)

    @pytest.mark.parametrize("place", REFUSES)
    @pytest.mark.parametrize("value", ["tomorrow", 1_900_000_000, 0, timedelta(hours=1), at(0).date(), False])
    def test_what_is_no_instant_is_refused(self, place: str, value: Any) -> None:
        """The message names the field and the value."""
        with pytest.raises(TypeError, match="deadline must be an aware datetime") as refused:
            REFUSES[place](deadline=value)
        assert repr(value) in str(refused.value)


class Sender:
    """Can be called."""

    def __call__(self, _: Context, __: Any) -> None:
        """Send."""


def _made_within() -> Callable[..., None]:
    def nested(_: Context, __: Any) -> None:
        """Known in here only."""

    return nested


UNREACHABLE: dict[str, Callable[..., object]] = {
    "async def": send,
    "lambda": lambda *_: None,
    "nested function": _made_within(),
    "partial": partial(send_in_a_thread),
    "bound method": Sender().__call__,
    "object": Sender(),
    "builtin": print,
}
"""Functions that another process cannot import and call."""


class TestPlaces:
    """Where a handler runs."""

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    def test_in_a_process_where_that_is_wanted(self, decorator: str) -> None:
        """A `def` function of a module may run in another process; left out or None, it runs in a thread."""
        for options, place in (({"run_in": "process"}, "process"), ({"run_in": None}, "thread"), ({}, "thread")):
            app = App()
            REGISTERS[decorator](app)(Mail, **options)(send_in_a_thread)
            assert app.handlers()["mail"].runs_in == place

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    @pytest.mark.parametrize("value", ["thread", "loop", "Process", "", 0, False, True, 7, ("process",), ["process"]])
    def test_anything_else_is_refused(self, decorator: str, value: Any) -> None:
        """The message names the field and the value, and what would be right."""
        with pytest.raises(ValueError, match="run_in must be 'process', or left out") as refused:
            REGISTERS[decorator](App())(Mail, run_in=value)
        assert repr(value) in str(refused.value)

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    @pytest.mark.parametrize("function", UNREACHABLE.values(), ids=UNREACHABLE)
    def test_what_no_other_process_can_find_is_refused(self, decorator: str, function: Any) -> None:
        """Only a `def` function of a module has a name to import it by; the message names kind, option and value."""
        app = App()
        with pytest.raises(
            TypeError, match=r"'mail' with run_in='process' must be a `def` function of a mod"
        ) as refused:
            REGISTERS[decorator](app)(Mail, run_in="process")(function)
        assert repr(function) in str(refused.value)
        assert app.kinds() == []

    @pytest.mark.parametrize("value", [None, "send", 7])
    def test_what_cannot_be_called_is_refused_there_too(self, value: Any) -> None:
        """Only a function can be registered; the message names the kind and the value."""
        with pytest.raises(TypeError, match="'mail'") as refused:
            App().handler(Mail, run_in="process")(value)
        assert repr(value) in str(refused.value)

    def test_a_cleanup_runs_in_the_worker(self) -> None:
        """The cancellation handler of a kind that runs in processes is called in the worker's own."""
        app = App()
        app.handler(Mail, run_in="process")(send_in_a_thread)
        app.cancellation_handler(Mail)(undo)
        called = app.handlers()["mail"].called_for(a_task(is_cancelled=True))
        assert (called.function, called.runs_in) == (undo, "loop")


class TestHandlers:
    """What applies to a kind, with everything settled."""

    def test_what_is_left_out_is_the_apps(self) -> None:
        """A handler without options has its App's timeout and retry."""
        policy = FixedDelay(9, 1)
        app = App(timeout=timedelta(minutes=2), retry=policy)
        app.handler(Mail)(send)
        app.batch_handler(Report)(send_in_a_thread)
        mail, report = app.handlers()["mail"], app.handlers()["report"]
        assert (mail.timeout, mail.retry, mail.concurrency, mail.max_batch) == (120, policy, None, None)
        assert (report.timeout, report.retry, report.concurrency, report.max_batch) == (120, policy, None, 100)
        assert (mail.runs_in, report.runs_in) == ("loop", "thread")
        assert (mail.has_cleanup, mail.payload_type, mail.function) == (False, Mail, send)

    def test_the_handlers_own_win(self) -> None:
        """What a decorator says holds for its kind."""
        policy = NoRetry()
        app = App(timeout=1)
        app.batch_handler(Mail, max_batch=7, timeout=timedelta(seconds=2), retry=policy, concurrency=3)(send)
        mail = app.handlers()["mail"]
        assert (mail.timeout, mail.retry, mail.concurrency, mail.max_batch) == (2, policy, 3, 7)

    @pytest.mark.parametrize("first", ["handler", "batch_handler"])
    def test_a_kind_has_a_handler_or_a_batch_handler(self, first: str) -> None:
        """One kind is run in one way only."""
        app = App()
        REGISTERS[first](app)(Mail)(send)
        with pytest.raises(HandlerAlreadyRegistered, match="mail"):
            app.batch_handler(Mail)(send)
        with pytest.raises(HandlerAlreadyRegistered, match="mail"):
            app.handler(Mail)(send)

    def test_partials_and_objects_are_functions_too(self) -> None:
        """Whether something is `async def` is seen through a partial, and on an object that can be called."""

        class Sender:
            """Callable."""

            async def __call__(self, _: Context, __: Any) -> None:
                """Send."""

        app = App()
        app.handler(Mail)(partial(send))
        app.handler(Report)(Sender())
        app.cancellation_handler(Mail)(partial(undo_in_a_thread))
        handlers = app.handlers()
        assert (handlers["mail"].runs_in, handlers["report"].runs_in) == ("loop", "loop")
        assert handlers["mail"].cleanup is not None
        assert handlers["mail"].cleanup.runs_in == "thread"


class TestCalls:
    """What is called for a task, and under which limits."""

    def test_a_task_is_run_by_its_handler(self) -> None:
        """A task's own timeout wins over its handler's."""
        app = App()
        app.handler(Mail, timeout=30)(send)
        handler = app.handlers()["mail"]
        assert (handler.called_for(a_task()).function, handler.called_for(a_task()).limit) == (send, 30)
        assert handler.called_for(a_task(timeout=7.0)).limit == 7
        assert not handler.called_for(a_task()).takes_list

    def test_a_batch_has_its_handlers_timeout(self) -> None:
        """In a batch no member's own timeout counts."""
        app = App()
        app.batch_handler(Mail, timeout=30)(send)
        called = app.handlers()["mail"].called_for(a_task(timeout=7.0))
        assert (called.limit, called.takes_list) == (30, True)

    @pytest.mark.parametrize("decorator", ["handler", "batch_handler"])
    def test_a_cancelled_task_is_cleaned_up(self, decorator: str) -> None:
        """The cancellation handler is called for it, with one payload, under its own limits."""
        policy = FixedDelay(10, 1)
        app = App()
        REGISTERS[decorator](app)(Mail, timeout=30)(send)
        app.cancellation_handler(Mail, timeout=5, retry=policy)(undo)
        called = app.handlers()["mail"].called_for(a_task(is_cancelled=True, timeout=7.0))
        assert (called.function, called.limit, called.retry, called.takes_list) == (undo, 5, policy, False)

    def test_a_cleanup_without_options_has_the_tasks(self) -> None:
        """Left out, its timeout is the task's, else its handler's, and its policy is the handler's."""
        policy = ExponentialBackoff(7)
        app = App()
        app.handler(Mail, timeout=30, retry=policy)(send)
        app.cancellation_handler(Mail)(undo)
        handler = app.handlers()["mail"]
        cancelled = a_task(is_cancelled=True)
        assert (handler.called_for(cancelled).limit, handler.called_for(cancelled).retry) == (30, policy)
        assert handler.called_for(cancelled.evolve(timeout=7.0)).limit == 7


class TestCancellationHandlers:
    """Registered beside the handler of their kind."""

    @pytest.mark.parametrize("handler", ["handler", "batch_handler"])
    @pytest.mark.parametrize("first", ["handler", "cancellation handler"])
    def test_the_order_does_not_matter(self, handler: str, first: str) -> None:
        """It may be registered before or after the handler."""
        app = App()
        if first == "handler":
            REGISTERS[handler](app)(Mail)(send)
        app.cancellation_handler(Mail)(undo)
        if first != "handler":
            REGISTERS[handler](app)(Mail)(send)
        cleanup = app.handlers()["mail"].cleanup
        assert cleanup is not None
        assert (cleanup.function, cleanup.runs_in, cleanup.timeout, cleanup.retry) == (undo, "loop", None, None)
        assert app.kinds() == ["mail"]

    def test_other_kinds_have_none(self) -> None:
        """It belongs to its own kind."""
        app = App()
        app.handler(Mail)(send)
        app.handler(Report)(send)
        app.cancellation_handler(Mail)(undo)
        assert [app.handlers()[kind].has_cleanup for kind in ("mail", "report")] == [True, False]

    def test_an_included_apps_comes_along(self) -> None:
        """A kind that is included keeps its cancellation handler, and all that wraps its calls."""
        inner, middle, outer = App("inner"), App("middle"), App("outer")
        inner.handler(Mail)(send)
        middle.include(inner)
        outer.include(middle)
        inner.cancellation_handler(Mail, timeout=5)(undo)  # also after it was included

        @outer.middleware
        async def around(_: Context, call_next: Any) -> object:
            return await call_next()

        mail = outer.handlers()["mail"]
        assert mail.cleanup is not None
        assert (mail.cleanup.function, mail.cleanup.timeout, mail.middlewares) == (undo, 5, (around,))

    def test_two_apps_have_each_their_own(self) -> None:
        """Kinds of several Apps do not share them."""
        one, other = App("one"), App("other")
        one.handler(Mail)(send)
        one.cancellation_handler(Mail)(undo)
        other.handler(Report)(send)
        other.cancellation_handler(Report)(undo_in_a_thread)
        one.include(other)
        cleanups = {kind: handler.cleanup for kind, handler in one.handlers().items()}
        assert {kind: cleanup and cleanup.function for kind, cleanup in cleanups.items()} == {
            "mail": undo,
            "report": undo_in_a_thread,
        }

    def test_one_without_a_handler_is_an_error(self) -> None:
        """A kind that nobody runs cannot be cleaned up: the error names it, and the kinds that there are."""
        app = App()
        app.handler(Report)(send)
        app.cancellation_handler(Mail)(undo)
        with pytest.raises(UnknownKind, match=r"'mail'.*report") as refused:
            app.handlers()
        assert refused.value.kind == "mail"

    @pytest.mark.parametrize("has_handler", ["outer", "inner"])
    def test_a_handler_in_another_app_does_not_count(self, has_handler: str) -> None:
        """Both have to be in the same App, so that including one cannot tear them apart."""
        outer, inner = App("outer"), App("inner")
        (outer if has_handler == "outer" else inner).handler(Mail)(send)
        (inner if has_handler == "outer" else outer).cancellation_handler(Mail)(undo)
        outer.include(inner)
        with pytest.raises(UnknownKind, match="mail"):
            outer.handlers()

    def test_a_worker_is_not_made_without_its_handler(self) -> None:
        """The mistake shows when the worker is made, before anything runs."""
        app = App()
        app.cancellation_handler(Mail)(undo)
        with pytest.raises(UnknownKind, match="mail"):
            Worker(app, Client(SqliteStore(":memory:", env="default")))
