"""`messages_of`: the conversation in the body of a chat page's request, as far as a server may believe it."""

from __future__ import annotations

from collections.abc import Iterable

from ..values.message import Message
from ..values.parts import Pending
from .ag_ui_history import ag_ui_history
from .gate import Gate
from .json_fields import WrongBody, object_of, objects_of, wrong_body
from .signatures import Signer
from .ui_history import ui_history

__all__ = ["messages_of"]


def messages_of(
    body: object,
    *,
    secret: str | bytes | None = None,
    held: Iterable[Pending] | None = None,
    tools: Iterable[str] = (),
    system: bool = False,
    urls: bool = False,
) -> tuple[Message, ...]:
    """Return the conversation in the body of a request of ``useChat`` or AG-UI, without what a client can forge.

    ::

        @app.post("/api/chat")
        async def chat(body: dict[str, Any]) -> Response:
            return ui_messages(agent(messages_of(body)))

    * A turn of the role ``system`` is left out.
    * A decision on a tool call counts only for a call that waits: the server holds it, or has signed it.
    * The result of a tool counts only if this server has signed it.
    * A file is bytes in the request. No field names a path or a file of the vendor.

    The texts of the user and of earlier answers count as the client sends them.

    Args:
        body: the JSON object of the request, decoded. The body of AG-UI has a ``threadId``.
        secret: the secret of `ui_messages` or `ag_ui`, and of the agent if it has one.
        held: the calls that wait for an approval, if the server keeps them. Then only these can be decided, and each
            once. Without it a client can send a signed approval again.
        tools: the names of the tools that run in the page. The page may send their results.
        system: whether the turns of the role ``system`` count.
        urls: whether a file may be a web address, which the vendor of the model downloads.

    Raises:
        MisuseError: the body is not such a request, or the client decides on a call that this server did not make.
            Starlette and FastAPI answer this error with the status 400 and its sentence.
    """
    signer = Signer(secret)
    waiting = None if held is None else {pending.call.id: pending for pending in held}
    gate = Gate(signer, waiting, frozenset(tools), system, urls)
    with wrong_body():
        conversation = _conversation(body, gate)
    gate.report()
    if not conversation:
        raise WrongBody("The request has no message of a user.")
    return conversation


def _conversation(body: object, gate: Gate) -> tuple[Message, ...]:
    fields = object_of(body, "its body")
    messages = objects_of(fields.get("messages"), "'messages'")
    return tuple(ag_ui_history(fields, messages, gate) if "threadId" in fields else ui_history(messages, gate))
