"""LLM Inference Gateway: one fast, honest API in front of many LLM providers.

Law: importing this package does nothing; everything lives in its modules.
"""

__version__ = "1.0.0"
