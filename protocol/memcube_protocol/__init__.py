"""What a cube is: values, formats, limits, errors. Pure: no sockets, no files, no clock.

Follows the Memory Interchange Protocol 1.0 (docs/spec). The modules are the interface.
"""
