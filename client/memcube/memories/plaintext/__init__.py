"""Records searched: by words, and by meaning where there are vectors.

`index` is what consumers hold. It is opened or built (`opening`, `build`) on one of two search engines
(`edge` on this disk, `server` for a team) behind the interface in `engine`; `embedders` make vectors,
`filters` and `ranking` decide what is found in which order, and `context` makes it text for a prompt.
"""
