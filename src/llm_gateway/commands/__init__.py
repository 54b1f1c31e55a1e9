"""What a person types after `llm-gateway`, one file a noun; `cli.py` puts them together."""
