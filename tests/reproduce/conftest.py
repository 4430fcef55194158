from mini_run import mini  # noqa: F401
