"""The Hugging Face Hub as a remote: a cube is a repository there that the Hub's users can read.

    hub = HubRemote(Site.of(settings), HttpClient(settings))
    manifest = hub.manifest("ann/notes", "1.0.0")

docs/spec/hub-repository.md fixes the layout. Reading needs nothing but HTTP; writing goes through `huggingface_hub`
(the extra `hub`), which is loaded when something is written.
"""

from memcube.hub.remote import HubRemote
from memcube.hub.site import Site

__all__ = ["HubRemote", "Site"]
