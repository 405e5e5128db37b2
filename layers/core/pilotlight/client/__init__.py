"""The Python client of a Pilotlight stack, over HTTP."""

from pilotlight.client.client import Client

__all__ = ["Client"]
