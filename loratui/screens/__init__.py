"""The app's five panels, each with its helpers beside it (`monitor`, `monitor_text`, …), and the dialogs of all."""
