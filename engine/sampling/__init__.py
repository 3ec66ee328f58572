"""Pictures from a base and its adapters."""
