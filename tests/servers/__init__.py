"""Servers on the loopback interface, started and stopped by fixtures."""
