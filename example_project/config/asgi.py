"""The ASGI application of the example project."""

import os

import openai  # noqa: F401 - now, as importing it would stop the event loop at the first call
from django.core.asgi import get_asgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
application = get_asgi_application()
