"""The exit codes of the commands, for cron and monitoring."""

#: An operator must act: the next run would fail in the same way.
NEEDS_YOU = 1
#: A temporary failure (EX_TEMPFAIL of BSD's sysexits.h): the next run probably succeeds.
TRY_AGAIN = 75
