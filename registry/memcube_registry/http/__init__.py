"""HTTP on raw ASGI, before and around the routes of the domains.

asgi           its types
gate           before every route: who is it, are they too fast, and how to log in
browsers       what pages of strangers may not ask
exchange       what came in, and the two kinds of answer
problems       errors as answers
distribution   the routes under `/v2/`
"""
