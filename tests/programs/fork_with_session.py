"""Fork while a session of HTTP connections is there.

Prints the exit status of the child (0 if it has a session of its own), and if the parent keeps it.
"""

import os

from tests.helpers.programs import set_up

if __name__ == "__main__":
    set_up()
    from django_quota.oidc.transport import _session

    session = _session()
    if (child := os.fork()) == 0:
        os._exit(0 if _session() is not session else 1)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), _session() is session)
