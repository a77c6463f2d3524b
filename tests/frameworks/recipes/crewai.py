from django_quota.contrib.crewai import llm


def ask(user, question):
    return llm(user, "gpt-4o-mini", max_tokens=200).call(question)


async def aask(user, question):
    return await llm(user, "gpt-4o-mini", max_tokens=200).acall(question)
