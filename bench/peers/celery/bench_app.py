"""The peer: a task that does nothing, as safe against a lost worker as ours is."""

import os

from celery import Celery
from kombu import Exchange, Queue

name = os.environ["BELLHOP_BENCH_QUEUE"]
# Acknowledged after the task, and prefetched per consumer, as quorum queues want it.
quorum = {"x-queue-type": "quorum"}
queue = Queue(name, Exchange(""), routing_key=name, durable=True, queue_arguments=quorum, no_declare=True)

app = Celery("bench_app", broker=os.environ["BELLHOP_BENCH_AMQP_URL"])
app.conf.update(
    task_queues=[queue],
    task_default_queue=name,
    task_acks_late=True,
    task_ignore_result=True,
    worker_detect_quorum_queues=True,
    worker_prefetch_multiplier=int(os.environ["BELLHOP_BENCH_PREFETCH"]),
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
)


@app.task(name="bench.noop")
def noop():
    pass
