from django_quota.contrib.langchain import chat_model


def ask(user, question):
    return chat_model(user, "gpt-4o-mini", max_tokens=200).invoke(question).content


async def aask(user, question):
    return (await chat_model(user, "gpt-4o-mini", max_tokens=200).ainvoke(question)).content
