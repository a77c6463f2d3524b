"""The pages of the example."""

from django.urls import path

from . import views

app_name = "chat"
urlpatterns = [
    path("", views.home, name="home"),
    path("chat", views.chat, name="chat"),
    path("chat/stream", views.stream, name="stream"),
    path("chat/new", views.new, name="new"),
]
