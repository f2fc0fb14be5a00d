"""KV memories (docs/spec/activation.md): keys and values that a model has computed once, for many questions.

`dump` writes one from a live model, `mount` gives it to a model of the same key, `generation` asks behind it.
A memory is read through `files`, or layer by layer while it travels to a device (`streaming`); what a prompt
then starts with is `mounted`, in cache layers (`layers`) and attention (`attention`) of our own.
"""
