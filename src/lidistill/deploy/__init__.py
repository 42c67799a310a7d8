"""From a trained student to something that runs elsewhere: what it costs, and export."""

from lidistill.deploy.profile import Cost, profile

__all__ = ["Cost", "profile"]
