"""Once a line comes in on stdin, print an access token of the only user."""

import sys

from tests.helpers.programs import set_up

if __name__ == "__main__":
    set_up()
    from django.contrib.auth import get_user_model

    from django_quota.tokens.access import get_access_token

    user = get_user_model().objects.get()
    sys.stdin.readline()
    print(get_access_token(user))
