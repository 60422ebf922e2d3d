"""Adapters to the frameworks that people train with, one thin file each; nothing here is loaded before it is asked for."""
