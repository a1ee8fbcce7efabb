"""A simulated engine for load and fault tests: answers with vLLM's bytes, makes no thoughts.

`python -m penstock_engines.simulated --uds PATH --model NAME` (or `--port N`). Its tokens cost almost nothing
so that a gateway under load is measured and not its engine; it keeps its own count per request as an oracle;
and it breaks on demand. What it shares with vLLM is held by a test that asks both the same questions.

    GET    /penstock/oracle         what it made for every request, by `X-Request-Id`
    DELETE /penstock/oracle         forget that
    GET    /penstock/receipts/{id}  as a real engine of Penstock answers it
    POST   /v1/unload_lora_adapter  forget an adapter; one is loaded (`--adapters FOLDER`) by being named
    POST   /penstock/faults         break from now on; the body is a `Fault`
    DELETE /penstock/faults         mend
    header x-penstock-fault         a `Fault` for this request alone
"""
