from haystack.dataclasses import ChatMessage

from django_quota.contrib.haystack import chat_generator


def ask(user, question):
    generator = chat_generator(user, "gpt-4o-mini", generation_kwargs={"max_tokens": 200})
    return generator.run([ChatMessage.from_user(question)])["replies"][0].text


async def aask(user, question):
    generator = chat_generator(user, "gpt-4o-mini", generation_kwargs={"max_tokens": 200})
    return (await generator.run_async([ChatMessage.from_user(question)]))["replies"][0].text
