"""How the weights of `tiny` were made, a stage a module. `python -m engine.tiny` runs them; nothing else imports this."""
