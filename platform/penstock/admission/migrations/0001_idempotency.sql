-- Requests that may be sent again: who executes one, and what was answered.
-- organisation_id is that of the schema "access", boot_id that of billing.gateway_boot; rooms share no foreign keys.

create schema admission;
comment on schema admission is 'Whether a request may run, now. Kept for a day at most: no fact that money depends on is here alone.';

create table admission.claim (
  id              bytea       primary key constraint claim_id_length check (length(id) = 32),
  fingerprint     bytea       not null constraint claim_fingerprint_length check (length(fingerprint) = 32),
  organisation_id bigint      not null,
  boot_id         text        not null,
  request_id      text        not null,
  metered         boolean     not null,
  state           text        not null default 'running' constraint claim_state
                              check (state in ('running', 'answered', 'not_kept', 'lost', 'unknown')),
  claimed_at      timestamptz not null default now(),
  expires_at      timestamptz not null,
  status          smallint,
  headers         jsonb,
  body            bytea,
  cost_nano_usd   bigint      not null default 0,
  constraint claim_answer check
    ((state = 'answered') = (status is not null and headers is not null and body is not null))
) with (fillfactor = 70);
create index claim_expiry on admission.claim (expires_at);

comment on table  admission.claim is 'One row per idempotency key in use. The row is the right to execute: who could not insert it may not.';
comment on column admission.claim.id is 'HMAC-SHA256 with the pepper over organisation, project, API key, operation and idempotency key';
comment on column admission.claim.fingerprint is 'SHA-256 over method, path and body: the same key with another request is refused';
comment on column admission.claim.boot_id is 'The gateway process that executes, or did';
comment on column admission.claim.request_id is 'The execution: its usage event, if it has one, bears this id';
comment on column admission.claim.metered is 'Whether executing leaves a usage event once it costs something, by which a dead process is judged';
comment on column admission.claim.state is
  'running; answered: the answer is here; not_kept: too large or secret; lost: charged, and the answer went with its client or process; unknown: it may or may not have taken effect';
comment on column admission.claim.expires_at is 'From here on the key is as good as new';
comment on column admission.claim.cost_nano_usd is 'What the execution was charged, once it ended';
