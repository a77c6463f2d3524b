from agents import Agent, OpenAIChatCompletionsModel, RunConfig, Runner
from asgiref.sync import async_to_sync

from django_quota.ai import async_openai_client

agent = Agent(name="Helper", instructions="Answer in one sentence.")


async def aask(user, question):
    model = OpenAIChatCompletionsModel("gpt-4o-mini", async_openai_client(user))
    run_config = RunConfig(model=model, tracing_disabled=True)
    return (await Runner.run(agent, question, run_config=run_config)).final_output


ask = async_to_sync(aask)  # not Runner.run_sync
