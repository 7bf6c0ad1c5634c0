"""`digest_of`: a digest of the models of a job and of their requests."""

from __future__ import annotations

from ..combinators.asked import asked
from ..exact import digest
from ..llm import LLM
from ..records import fingerprint
from ..values.request import Request

__all__ = ["digest_of"]


def digest_of(llm: LLM, request: Request) -> str:
    """Return a digest of the models and of their requests. Keys, addresses, retries and limiters do not count.

    Raises:
        MisuseError: the request contains a value without a stable digest, such as a function.
    """
    facts: list[list[str | None]] = []
    for leaf, of_leaf in asked(llm, request):
        service = leaf.service(of_leaf)
        facts.append([service.provider, service.model, fingerprint(of_leaf)])
    return digest(facts)
