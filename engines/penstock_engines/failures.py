"""What can go wrong with an engine: one class per decision its keeper can take."""

from __future__ import annotations


class EngineFailure(Exception):
    """Something is wrong with an engine or with starting one; the message says what and what to do."""


class NoEngineBuildError(EngineFailure):
    """This machine has no build of vLLM that can run here: trying again does not help."""


class EngineSettingsError(EngineFailure):
    """The engine cannot be started as described: trying again does not help."""


class LaunchError(EngineFailure):
    """The process could not be started; another try may go well."""


class NotReadyError(EngineFailure):
    """The engine started but gave no answer before its deadline."""


class EngineDiedError(EngineFailure):
    """The engine's process ended by itself."""


class EngineStalledError(EngineFailure):
    """The engine's process lives, but makes no tokens."""


class SleepError(EngineFailure):
    """The engine could not be put to sleep, or woken: it is killed, and started anew when it is wanted."""


class ScrapeError(EngineFailure):
    """The engine's figures could not be read."""
