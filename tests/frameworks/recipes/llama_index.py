from django_quota.contrib.llama_index import llm


def ask(user, question):
    return llm(user, "gpt-4o-mini", max_tokens=200).complete(question).text


async def aask(user, question):
    return (await llm(user, "gpt-4o-mini", max_tokens=200).acomplete(question)).text
