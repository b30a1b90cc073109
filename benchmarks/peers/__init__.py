"""The same no-op tasks, run by others: arq and Celery on Redis, Procrastinate on PostgreSQL, huey on SQLite.

None of them is needed by oncetask. What is to be measured is installed beside it, into the same environment:

    pip install arq 'celery[redis]' 'procrastinate' 'psycopg[binary]' huey

and the servers by the system's package manager: `apt install redis-server postgresql`, or `brew install redis
postgresql`. They need not run: each is started for its measurement, on a free port of the loopback interface and in a
temporary folder, and stopped afterwards. PostgreSQL refuses to run as root; root has it run as the user `postgres`, or
`nobody`. A runner that misses something is left out, and one line says why.

`python -m benchmarks.peers` measures those that are there, or those that are named.

Each runner is set up as its own documentation advises where many short tasks are to be run fast; everything else stays
as it comes, durability too, and its title says what matters. Tasks are enqueued from one process by the fastest call
that the runner offers for it. Then its own worker program starts, and reports nothing of each task. The drain is timed
from the first start of a task to the moment when the last one is acknowledged, so that a worker's start does not count.
For the latency the worker has been idle for 0.3 to 1 s when another process enqueues one task; what counts is the time
from that call to the task's first line.
"""
