from asgiref.sync import async_to_sync
from pydantic_ai import Agent

from django_quota.contrib.pydantic_ai import model

agent = Agent(model_settings={"max_tokens": 200})


async def aask(user, question):
    return (await agent.run(question, model=model(user, "gpt-4o-mini"))).output


ask = async_to_sync(aask)  # not agent.run_sync
