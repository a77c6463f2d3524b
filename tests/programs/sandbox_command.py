"""Run quota_sandbox as manage.py does, with an option that makes it refuse to start."""

from django_quota.management.commands.quota_sandbox import Command

if __name__ == "__main__":
    Command().run_from_argv(["manage.py", "quota_sandbox", "--port=-1"])
