import dspy

from django_quota.ai import async_openai_client, openai_client


def language_model(client):
    return dspy.LM(
        "openai/gpt-4o-mini",
        engine="litellm",
        client=client,
        api_key="unused",
        cache=False,
        num_retries=0,
        max_tokens=200,
    )


def ask(user, question):
    return language_model(openai_client(user))(question)[0]


async def aask(user, question):
    return (await language_model(async_openai_client(user)).acall(question))[0]
