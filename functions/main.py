"""What is deployed: each name below is the entry point of a Cloud Function (docs/deploy.md).

The store, the environment, who may call and who wakes are said by variables (ONCETASK_STORE, ONCETASK_ENV,
ONCETASK_AUTH, ONCETASK_WAKE …), so that staging and production run the same code.
"""

from __future__ import annotations

import functions_framework.aio
from tasks import app

from oncetask import functions

scheduler = functions_framework.aio.http(functions.scheduler(app, budget=50))
api = functions_framework.aio.http(functions.api(app))
on_task_created = functions_framework.aio.http(functions.on_task_created(app, budget=50))
