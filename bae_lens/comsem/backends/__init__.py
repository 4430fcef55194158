"""What answers ComSem's requests: a model behind an OpenAI-compatible server, rules without any model, or a user's function."""
