"""The transformer: OpenAI's completion endpoint that packs the project's files into the prompt. It knows no torch."""
