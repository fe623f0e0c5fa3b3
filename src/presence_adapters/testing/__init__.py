"""Test tools for drivers. They do I/O; the tools of `presence_proto.testing` do not."""

from presence_adapters.testing.driver_check import DUTIES, Driver, DutyError, DutyResult, check_driver

__all__ = ["DUTIES", "Driver", "DutyError", "DutyResult", "check_driver"]
