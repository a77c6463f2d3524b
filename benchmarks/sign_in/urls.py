from django.http import HttpRequest, HttpResponse
from django.urls import path

from benchmarks.sign_in.settings import PROJECT


def home(request: HttpRequest) -> HttpResponse:
    return HttpResponse("home")


urlpatterns = [path("", home), *PROJECT.urls()]
