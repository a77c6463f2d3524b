from langgraph.graph import END, START, MessagesState, StateGraph

from django_quota.contrib.langchain import chat_model


def graph_for(user):
    model = chat_model(user, "gpt-4o-mini", max_tokens=200)

    def answer(state):
        return {"messages": [model.invoke(state["messages"])]}

    graph = StateGraph(MessagesState)
    graph.add_node("answer", answer)
    graph.add_edge(START, "answer")
    graph.add_edge("answer", END)
    return graph.compile()


def ask(user, question):
    return graph_for(user).invoke({"messages": [("user", question)]})["messages"][-1].content
