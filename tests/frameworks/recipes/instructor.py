import instructor
from pydantic import BaseModel

from django_quota.ai import async_openai_client, openai_client


class Answer(BaseModel):
    text: str


def ask(user, question):
    return instructor.from_openai(openai_client(user)).create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        response_model=Answer,
        max_retries=0,
    )


async def aask(user, question):
    return await instructor.from_openai(async_openai_client(user)).create(
        model="gpt-4o-mini",
        messages=[{"role": "user", "content": question}],
        response_model=Answer,
        max_retries=0,
    )
