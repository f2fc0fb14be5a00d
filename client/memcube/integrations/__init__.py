"""Mounted memories in the frameworks of others: LangChain's retrievers, LangGraph's stores."""
