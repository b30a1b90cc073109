"""Google's client of Cloud Tasks; imported at the first alarm, in a thread, since that takes a second."""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Any, Self

import google.auth
from google.api_core.exceptions import AlreadyExists, ServiceUnavailable
from google.api_core.retry import AsyncRetry, if_exception_type
from google.cloud import tasks_v2
from google.cloud.tasks_v2.services.cloud_tasks.transports import CloudTasksGrpcAsyncIOTransport

from oncetask.threads import in_thread

__all__ = ["Alarms"]


class Alarms:
    """Alarms in queues, set through one client on the loop that it was made on."""

    def __init__(self, client: tasks_v2.CloudTasksAsyncClient) -> None:
        """Use a client."""
        self._client = client

    @classmethod
    async def open(cls) -> Self:
        """Make a client of the default credentials. Raises google.auth's errors where there are none."""
        scopes = CloudTasksGrpcAsyncIOTransport.AUTH_SCOPES
        credentials, _ = await in_thread(google.auth.default, scopes)  # it reads files, and may ask a metadata server
        transport = CloudTasksGrpcAsyncIOTransport(credentials=credentials)  # belongs to this loop
        return cls(await in_thread(partial(tasks_v2.CloudTasksAsyncClient, transport=transport)))  # reads files, too

    async def set(self, name: str, at: datetime, *, url: str, account: str, audience: str, timeout: float) -> None:
        """Let `name`'s queue post to a url at `at`, as an account, unless there is such an alarm.

        What is unavailable for a moment is tried again until `timeout`, in seconds. Raises google.api_core's errors.
        """
        request = tasks_v2.HttpRequest(
            url=url,
            http_method=tasks_v2.HttpMethod.POST,
            oidc_token=tasks_v2.OidcToken(service_account_email=account, audience=audience),
        )
        task = tasks_v2.Task(name=name, schedule_time=at, http_request=request)
        retry = AsyncRetry(if_exception_type(ServiceUnavailable), initial=0.1, maximum=1.0, timeout=timeout)
        queue = name.partition("/tasks/")[0]
        try:
            await self._client.create_task(parent=queue, task=task, retry=retry, timeout=timeout)
        except AlreadyExists:
            return

    async def aclose(self) -> None:
        """Close the client's connection."""
        transport: Any = self._client.transport  # its `close` has no types
        await transport.close()
