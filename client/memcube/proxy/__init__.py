"""A proxy that gives memory to every program that speaks the OpenAI API.

    caller ── request ──▶ callers ──▶ forms (adds the memory) ──▶ upstream ──▶ engine
           ◀───────────────── bytes, as they come ──────────────────┘

`forms` and `callers` are pure; `application` joins the parts, `serving` runs them.
"""
