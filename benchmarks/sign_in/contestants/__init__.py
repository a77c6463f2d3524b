"""Who takes part."""

from benchmarks.sign_in.contestants.allauth import Allauth
from benchmarks.sign_in.contestants.authlib import Authlib
from benchmarks.sign_in.contestants.esi import Esi
from benchmarks.sign_in.contestants.floor import Floor
from benchmarks.sign_in.contestants.mozilla import Mozilla
from benchmarks.sign_in.contestants.quota import Quota
from benchmarks.sign_in.contestants.social_auth import SocialAuth
from benchmarks.sign_in.project import Project

#: The floor comes first: the others are compared with it.
PROJECTS: dict[str, Project] = {
    project.name: project
    for project in (Floor(), Quota(), Mozilla(), Allauth(), SocialAuth(), Authlib(), Esi())
}
