"""The generate function: streams texts of language models, in the shapes of OpenAI, Anthropic and Triton."""
