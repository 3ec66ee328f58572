"""The host: a light process between the terminal and the jobs. It submits and follows them, and looks files up.

Nothing here imports torch, and nothing of a job lives here: the directories are the truth, so a host can die any time.
"""
