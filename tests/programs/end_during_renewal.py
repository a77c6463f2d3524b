"""End while a token is being renewed for a page that has not waited: print "ends" before that.

With an argument, do not end but wait for a signal.
"""

import signal
import sys

from tests.helpers.programs import GIVE_UP_AFTER, set_up

if __name__ == "__main__":
    signal.alarm(GIVE_UP_AFTER)
    set_up()
    from django.contrib.auth import get_user_model

    from django_quota.exceptions import ProviderUnavailable
    from django_quota.oidc.time_limit import within
    from django_quota.tokens.access import get_access_token

    try:
        with within(0):
            get_access_token(get_user_model().objects.get())
    except ProviderUnavailable:
        print("ends", flush=True)
    if sys.argv[2:]:
        signal.pause()
