"""Adapters in an engine: found by the digest of their content when a request first names one.

Runs inside vLLM's API process, on its public extension points: a resolver, which vLLM asks for a model name
that it does not know, one request at a time per name; and a middleware. An engine that was restarted, or
never served an adapter, needs no telling. vLLM keeps the weights that were used last (`--max-cpu-loras`) and
reads others from their folder again, so that folder must stay while a request may run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from penstock_engines.adapter_names import NAME_HEADER, place_of

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

_called: ContextVar[str | None] = ContextVar("penstock_model", default=None)


class ModelNameMiddleware:
    """Notes what the answer to a request is to call its model."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one exchange."""
        if scope["type"] == "http":
            name = next((value for name, value in scope["headers"] if name == NAME_HEADER), None)
            # vLLM's handlers, and the tasks they start, inherit this.
            _called.set(None if name is None else name.decode("latin-1"))
        await self._app(scope, receive, send)


def install(folder: Path) -> None:
    """Have vLLM find adapters in this folder; once per process, before the engine is made."""
    from vllm.entrypoints.openai.models.serving import OpenAIServingModels  # noqa: PLC0415
    from vllm.lora.request import LoRARequest  # noqa: PLC0415 - engine processes only
    from vllm.lora.resolver import LoRAResolver, LoRAResolverRegistry  # noqa: PLC0415

    class ByContent(LoRAResolver):  # type: ignore[misc]
        async def resolve_lora(self, base_model_name: str, lora_name: str) -> Any:  # noqa: ARG002
            place = place_of(folder, lora_name)
            # vLLM gives the number itself; it only may not be 0.
            return None if place is None else LoRARequest(lora_name, 1, str(place))

    LoRAResolverRegistry.register_resolver("penstock", ByContent())
    model_name = OpenAIServingModels.model_name
    unload = OpenAIServingModels.unload_lora_adapter

    def called(self: Any, lora_request: Any = None) -> str:
        name = _called.get()
        return name if name is not None and lora_request is not None else str(model_name(self, lora_request))

    async def unloading(self: Any, request: Any) -> Any:
        known = self.lora_requests.get(request.lora_name)
        answer = await unload(self, request)
        if known is not None and request.lora_name not in self.lora_requests:
            # vLLM forgets the name only. A request that still runs has the weights read again.
            await self.engine_client.remove_lora(known.lora_int_id)
        return answer

    OpenAIServingModels.model_name = called
    OpenAIServingModels.unload_lora_adapter = unloading
