"""The frameworks that there is a recipe for."""

#: Recipe -> the module that shows that its framework is installed.
FRAMEWORKS = {
    "langchain": "langchain_openai",
    "langgraph": "langgraph",
    "pydantic_ai": "pydantic_ai",
    "litellm": "litellm",
    "openai_agents": "agents",
    "llama_index": "llama_index.llms.openai",
    "haystack": "haystack",
    "smolagents": "smolagents",
    "instructor": "instructor",
    "dspy": "dspy",
    "crewai": "crewai",
    "anthropic": "anthropic",
}
#: Those that do not work with the HTTP library of release 2 of the OpenAI SDK.
NEED_OPENAI_3 = {"anthropic"}
