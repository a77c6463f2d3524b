"""What a page or a task does while its process is stopped: it asks for a token."""

from pathlib import Path

from benchmarks.stopped.settings import STOPPED

#: Seconds that a job with a time limit has. The renewal takes longer.
LIMIT = 1


def leave(name: str) -> None:
    """Wait two seconds, as a page that shows the balance; the renewal goes on."""
    from django.contrib.auth import get_user_model

    from django_quota.exceptions import ProviderUnavailable
    from django_quota.oidc.time_limit import within
    from django_quota.tokens.access import get_access_token

    try:
        with within(2):
            get_access_token(get_user_model().objects.get(username=name))
    except ProviderUnavailable:
        note("left")


def wait(name: str) -> None:
    """Wait for the renewal."""
    from django.contrib.auth import get_user_model

    from django_quota.exceptions import QuotaError
    from django_quota.tokens.access import get_access_token

    try:
        get_access_token(get_user_model().objects.get(username=name))
    except QuotaError:
        raise
    except BaseException:
        note("struck")
        raise


def note(what: str) -> None:
    """Tell benchmarks.stops what has happened."""
    Path(STOPPED["folder"], what).touch()
