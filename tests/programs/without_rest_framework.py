"""Import django_quota.contrib.drf where Django REST framework is not installed; print the error."""

import sys

from tests.helpers.programs import set_up

if __name__ == "__main__":
    set_up()
    sys.modules["rest_framework.exceptions"] = None  # type: ignore[assignment]
    try:
        import django_quota.contrib.drf  # noqa: F401
    except ImportError as error:
        print(error)
