from django_quota.ai import anthropic_client, async_anthropic_client


def ask(user, question):
    message = anthropic_client(user).messages.create(
        model="anthropic/claude-sonnet-4",
        max_tokens=200,
        messages=[{"role": "user", "content": question}],
    )
    return message.content[0].text


async def aask(user, question):
    message = await async_anthropic_client(user).messages.create(
        model="anthropic/claude-sonnet-4",
        max_tokens=200,
        messages=[{"role": "user", "content": question}],
    )
    return message.content[0].text
