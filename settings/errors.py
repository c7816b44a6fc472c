"""The root of the exception tree, and the errors of settings themselves.

``RetrainError`` is what a command turns into one clear line for the user; anything else that
reaches the top is a bug and keeps its traceback.
"""


class RetrainError(Exception):
    """Base of every error this software raises on purpose: what happened, where, and what to do."""


class SettingsError(RetrainError):
    """A settings file, flag or environment variable is wrong; the message names the field."""
