import litellm

from django_quota.ai import async_openai_client, openai_client


def ask(user, question):
    completion = litellm.completion(
        model="openai/gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        max_tokens=200,
        client=openai_client(user),
    )
    return completion.choices[0].message.content


async def aask(user, question):
    completion = await litellm.acompletion(
        model="openai/gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        max_tokens=200,
        client=async_openai_client(user),
    )
    return completion.choices[0].message.content
