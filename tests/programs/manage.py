"""Run the management command that the arguments name."""

from django.core.management import call_command

from tests.helpers.programs import set_up

if __name__ == "__main__":
    call_command(*set_up())
