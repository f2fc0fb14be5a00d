"""Builds: one kind of memory made from another, for a model at hand, judged before it is offered.

| from | to | method | how |
|---|---|---|---|
| records | KV cache | `encode` | prefill of the rendered records, under the cube's own adapter where it has one |
| records | LoRA | `distil` | the model learns to answer without the text as it does with it |
| KV cache | records | `source-text` | the text that it was made from, or its tokens read back |
| LoRA | records | `ask` | questions, answers kept with the confidence of the model |

    material     what a recipe takes out of a cube
    questions    where questions come from: a file, or the model itself
    asking       how a question is put, and whether an answer is right
    distillation, extraction     the work
    evaluation   recall and damage
    planning     from what somebody wants to a recipe
    workbench    one build under way
    builder      from a recipe to a build in the local store
    holding      builds in the local store
    repeating    a build made again, and compared with what was claimed
    publishing, finding          builds at a registry: signed, judged, fetched
"""
