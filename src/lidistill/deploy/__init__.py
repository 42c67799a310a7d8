"""The cost of a trained detector: parameters, operations, latency and memory."""

from lidistill.deploy.profile import Cost, profile

__all__ = ["Cost", "profile"]
