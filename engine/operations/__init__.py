"""Operations on adapter and checkpoint files: modules that read, call `lora`, `formats` and `models`, and write.

Each has a function of (request, reporter) that returns a struct of `engine.protocol.operations`; `engine.operate` knows
them by name and starts them. They raise UserError for what a user can mend, and leave nothing half-written.
"""
