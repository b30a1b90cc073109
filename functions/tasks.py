"""The tasks of this service: what it runs in the background, and how often it tries."""

from __future__ import annotations

import hashlib

from oncetask import App, Context, Discard, ExponentialBackoff, Payload, Recurrence

__all__ = ["Greeting", "Tidying", "app"]


class Greeting(Payload, kind="greeting"):
    """A greeting for somebody who has just joined."""

    name: str
    address: str

    def idempotency_key(self) -> str:
        """Greet each address once, however often somebody asks for it."""
        return hashlib.sha256(self.address.encode()).hexdigest()


class Tidying(Payload, kind="tidying"):
    """What has to be done every night."""


app = App("service", timeout=30)


@app.handler(Greeting, retry=ExponentialBackoff(max_attempts=5, base_delay=2))
async def greet(ctx: Context, greeting: Greeting) -> str:
    """Say hello; here to the log, elsewhere by mail."""
    if "@" not in greeting.address:
        msg = f"{greeting.address!r} is no address: no further attempt would change that"
        raise Discard(msg)
    ctx.logger.info("hello %s <%s>", greeting.name, greeting.address)
    return f"greeted {greeting.name}"


@app.handler(Tidying)
async def tidy(ctx: Context, _: Tidying) -> None:
    """Run once a night, whichever instance is awake."""
    ctx.logger.info("tidied up")


app.schedule("tidying", Tidying(), Recurrence.cron("0 3 * * *", timezone="Europe/Berlin"))
