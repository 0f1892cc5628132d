"""Train's parts: a run in a child process, told as it goes."""
