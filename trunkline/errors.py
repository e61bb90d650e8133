"""The errors that trunkline raises on purpose; all derive from :class:`TrunklineError`."""

from trunkline.bus.errors import (
    AccountMismatchError,
    CallFailedError,
    CarrierError,
    InternalError,
    InvalidRequestError,
    NumberBusyError,
    NumberNotFoundError,
    NumberRoutedElsewhereError,
    ProtocolMismatchError,
    SettingsError,
    StackUnavailableError,
    TimedOutError,
    TrunklineError,
    WrongModeError,
)

__all__ = [
    "AccountMismatchError",
    "CallFailedError",
    "CarrierError",
    "InternalError",
    "InvalidRequestError",
    "NumberBusyError",
    "NumberNotFoundError",
    "NumberRoutedElsewhereError",
    "ProtocolMismatchError",
    "SettingsError",
    "StackUnavailableError",
    "TimedOutError",
    "TrunklineError",
    "WrongModeError",
]
