"""What runs in the background: `oncetask worker mails.tasks:app`."""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage

from pydantic import Field

from oncetask import App, Context, ExponentialBackoff, Payload

SERVER = os.environ.get("SMTP_SERVER", "localhost:1025")


class ConfirmOrder(Payload, kind="confirm-order"):
    """An order, and who placed it."""

    order: str = Field(pattern=r"^[A-Za-z0-9-]{1,40}$")
    to: str = Field(pattern=r"^[^\s@,<>]+@[^\s@,<>]+$", max_length=254)

    def idempotency_key(self) -> str:
        """An order is confirmed once, however often the request is repeated."""
        return self.order


app = App("mails")


@app.handler(ConfirmOrder, timeout=60, retry=ExponentialBackoff(max_attempts=8))
def confirm(ctx: Context, confirmation: ConfirmOrder) -> None:
    """Send a mail: `def`, since smtplib blocks, so it runs in a thread."""
    mail = EmailMessage()
    mail["Subject"] = f"Your order {confirmation.order}"
    mail["From"] = "shop@example.org"
    mail["To"] = confirmation.to
    mail["Message-ID"] = f"<{ctx.task_id}@example.org>"  # so that mail programs know one that comes twice
    mail.set_content("Thank you, we have it.")
    with smtplib.SMTP(SERVER, timeout=20) as server:
        server.send_message(mail)
