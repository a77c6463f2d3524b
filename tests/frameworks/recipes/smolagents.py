from smolagents import ChatMessage, OpenAIModel

from django_quota.ai import openai_client


def ask(user, question):
    model = OpenAIModel("gpt-4o-mini", client=openai_client(user), retry=False, max_tokens=200)
    return model.generate([ChatMessage(role="user", content=question)]).content
