"""Publishes before any worker has run, so that Celery's declarations come first."""

import producers

producers.send_to_all("early")
