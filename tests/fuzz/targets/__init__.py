"""Targets: functions of bytes that may raise nothing but an `FcclError`."""
