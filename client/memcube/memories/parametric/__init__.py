"""LoRA adapters as memories (docs/spec/parametric.md).

`dump` writes one from a model or a folder, `mount` puts it on a model after every check and takes it
off without a trace. `adapters` is what is done with several on one model: switch, combine, route.
"""
