"""Celery apps as their owners configure them; none knows of Bellhop."""

import os

from celery import Celery
from kombu import Exchange, Queue

BROKER = os.environ["AMQP_URL"]


def app(**settings):
    made = Celery("producer", broker=BROKER)
    made.conf.update(task_publish_retry=False, **settings)
    return made


def apps(prefix):
    """One app for each way in which Celery declares a queue, by the queue's name."""
    return {
        prefix: app(task_default_queue=prefix),
        f"{prefix}-quorum": app(
            task_default_queue=f"{prefix}-quorum",
            task_default_queue_type="quorum",
            broker_transport_options={"confirm_publish": True},
        ),
        f"{prefix}-priority": app(task_default_queue=f"{prefix}-priority", task_queue_max_priority=10),
    }


def app_that_declares_nothing():
    """For a broker on which producers may not create queues."""
    ours = Queue("bellhop.jobs.default", Exchange("bellhop.jobs", no_declare=True), no_declare=True)
    return app(task_queues=[ours], task_default_queue=ours.name, task_create_missing_queues=False)


def send_to_all(prefix):
    """A task into each of the queues, which declares the queue. Their ids."""
    for name, producer in apps(prefix).items():
        producer.send_task("tests.echo", kwargs={"queue": name}, task_id=f"task-{name}", headers={"user_id": "ann"})
        producer.close()
