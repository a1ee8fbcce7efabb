create schema engines;

create table engines.replica (
  id         text        primary key,
  model      text        not null,
  state      text        not null
             constraint replica_state_known check (state in ('starting', 'ready', 'draining', 'gone')),
  socket     text        not null,
  batch_max  integer     not null constraint replica_batch_positive check (batch_max > 0),
  reason     text,
  controller text        not null,
  changed_at timestamptz not null default now()
);
comment on table engines.replica is 'Engines as the leading controller sees them; gateways route by it.';
comment on column engines.replica.controller is 'Which start of a controller wrote the row: a new leader clears the rest.';
comment on column engines.replica.batch_max is 'Most requests in the engine''s running batch.';
