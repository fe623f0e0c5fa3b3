"""Tools for testing what is built on this package. Unlike the rest of `presence_proto`, some do I/O."""

from __future__ import annotations

from presence_proto.testing.driver_check import DUTIES, Driver, DutyError, check_driver

__all__ = ["DUTIES", "Driver", "DutyError", "check_driver"]
