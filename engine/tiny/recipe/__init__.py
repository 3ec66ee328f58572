"""How the weights of `tiny` were made, a stage a module. Run by `python -m engine.tiny` and by nothing else."""
