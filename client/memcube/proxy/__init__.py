"""A proxy that gives memory to every program that speaks the OpenAI API.

    caller ── request ──▶ guard ──▶ forms (adds the memory) ──▶ upstream ──▶ engine
           ◀──────────────── bytes, as they come ─────────────────┘

`forms` is pure; `application` joins the parts, `serving` runs them behind the guard.
"""
