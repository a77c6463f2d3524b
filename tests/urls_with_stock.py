from django.urls import include, path

from tests.urls import urlpatterns as ours

urlpatterns = [*ours, path("oidc/", include("mozilla_django_oidc.urls"))]
