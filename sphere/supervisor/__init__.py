"""PID 1 of a machine: starts its components, restarts what dies, reaps what is orphaned.

Standard library only, and only its light parts (no ``asyncio``, ``subprocess``, ``dataclasses``): one of these runs
for every machine, so its memory is paid many times. Run as ``python -E -s -S -m sphere.supervisor``.
"""
