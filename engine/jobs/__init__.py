"""One small module per kind of job. A job reads its config, calls the packages below, and reports to its journal."""
