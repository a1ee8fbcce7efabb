-- Metering and money. Amounts are integers: pico-dollars per token in prices, nano-dollars everywhere else.
-- organisation_id and project_id are those of the schema "access"; rooms share no foreign keys.

create schema billing;
comment on schema billing is 'Usage, prices and the ledger. Facts are only ever added.';

-- Facts are added, never changed: a correction is a new row. ---------------------------------------------

create function billing.refuse_change() returns trigger language plpgsql as $$
begin
  raise exception 'billing.% is append-only: % is refused; book a correction instead', tg_table_name, lower(tg_op)
    using errcode = 'restrict_violation';
end $$;
comment on function billing.refuse_change() is 'Trigger: makes a table append-only, for its owner and superusers too.';

-- Prices. -------------------------------------------------------------------------------------------------

create table billing.price_version (
  id                    bigint      generated always as identity primary key,
  model                 text        not null,
  input_pico_usd        bigint      not null,
  cached_input_pico_usd bigint      not null,
  output_pico_usd       bigint      not null,
  valid_from            timestamptz not null,
  constraint price_version_not_negative
    check (input_pico_usd >= 0 and cached_input_pico_usd >= 0 and output_pico_usd >= 0)
);
create index price_version_by_model on billing.price_version (model, valid_from desc, id desc);
comment on table  billing.price_version is 'Immutable prices: the one in force is a model''s latest valid_from that has come.';
comment on column billing.price_version.input_pico_usd is 'Pico-dollars (1e-12 US dollars) per input token';
comment on column billing.price_version.cached_input_pico_usd is 'Pico-dollars per input token found in the prefix cache';
comment on column billing.price_version.output_pico_usd is 'Pico-dollars per output token';

create trigger append_only before update or delete on billing.price_version
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.price_version
  for each statement execute function billing.refuse_change();

create function billing.cost_nano_usd(
  outcome text, input_tokens bigint, cached_tokens bigint, output_tokens bigint,
  input_pico_usd bigint, cached_input_pico_usd bigint, output_pico_usd bigint
) returns bigint language sql immutable strict parallel safe as $$
  select case when outcome not in ('done', 'client_gone') then 0 else (
    select (nano + case when rest > 500 or (rest = 500 and mod(nano, 2) = 1) then 1 else 0 end)::bigint
    from (select div(pico, 1000) as nano, mod(pico, 1000) as rest
          from (select (input_tokens - cached_tokens)::numeric * input_pico_usd
                     + cached_tokens::numeric * cached_input_pico_usd
                     + output_tokens::numeric * output_pico_usd as pico) as exact) as parts) end
$$;
comment on function billing.cost_nano_usd is
  'What a request costs: exact, then rounded once, half to even; our own failures are free. As rating.py, for audits.';

-- Usage events: one row per request, in daily partitions. -------------------------------------------------

create table billing.usage_event (
  event_id              uuid        not null,
  ended_at              timestamptz not null,
  organisation_id       bigint      not null,
  project_id            bigint      not null,
  key_id                text        not null,
  request_id            text        not null,
  client_request_id     text,
  surface               text        not null,
  model                 text        not null,
  price_version         bigint      not null,
  input_tokens          integer     not null,
  cached_tokens         integer     not null,
  output_tokens         integer     not null,
  reasoning_tokens      integer     not null,
  outcome               text        not null,
  status                smallint    not null,
  streamed              boolean     not null,
  queue_us              bigint      not null,
  first_token_us        bigint      not null,
  duration_us           bigint      not null,
  replica               text        not null,
  cost_nano_usd         bigint      not null,
  ledger_transaction_id bigint,
  constraint usage_event_identity primary key (ended_at, event_id),
  constraint usage_event_cached_within_input check (cached_tokens between 0 and input_tokens),
  constraint usage_event_outcome
    check (outcome in ('done', 'client_gone', 'engine_failed', 'stalled', 'shutdown'))
) partition by range (ended_at);
create index usage_event_by_organisation on billing.usage_event (organisation_id, ended_at);
create index usage_event_by_request on billing.usage_event (organisation_id, request_id);
create index usage_event_by_client_request on billing.usage_event (organisation_id, client_request_id)
  where client_request_id is not null;
create table billing.usage_event_default partition of billing.usage_event default;

comment on table  billing.usage_event is 'What one request used and cost, as its journal record says; one partition per UTC day.';
comment on table  billing.usage_event_default is 'Catches days without a partition; partitions.ensure empties it.';
comment on column billing.usage_event.event_id is 'UUID version 7; with ended_at the identity under which a request counts once';
comment on column billing.usage_event.request_id is 'Ours, as the response''s header named it';
comment on column billing.usage_event.client_request_id is 'What the client called the request, where it did';
comment on column billing.usage_event.surface is 'Which API was called: chat.completions, completions, embeddings';
comment on column billing.usage_event.price_version is 'price_version.id, fixed at admission';
comment on column billing.usage_event.cached_tokens is 'Part of input_tokens: found in the engine''s prefix cache';
comment on column billing.usage_event.reasoning_tokens is 'Part of output_tokens; shown, not charged apart';
comment on column billing.usage_event.outcome is
  'done, client_gone (charged what was generated); engine_failed, stalled, shutdown (ours: free)';
comment on column billing.usage_event.status is 'HTTP status the client was given; 0 when it left before one';
comment on column billing.usage_event.queue_us is 'Microseconds from arrival until an engine took the request';
comment on column billing.usage_event.first_token_us is 'Microseconds from arrival to the first token; 0 when none came';
comment on column billing.usage_event.duration_us is 'Microseconds from arrival to the end';
comment on column billing.usage_event.cost_nano_usd is 'Nano-dollars (1e-9 US dollars)';
comment on column billing.usage_event.ledger_transaction_id is 'The ledger transaction that booked the cost; null when it costs nothing';

create trigger append_only before update or delete on billing.usage_event
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.usage_event
  for each statement execute function billing.refuse_change();

create function billing.ensure_usage_partition(day date) returns boolean language plpgsql as $$
declare
  part  text := 'usage_event_' || to_char(day, 'YYYYMMDD');
  since timestamptz := day::timestamp at time zone 'UTC';
  until timestamptz := (day + 1)::timestamp at time zone 'UTC';
  strayed boolean;
begin
  if to_regclass('billing.' || part) is not null then
    return false;
  end if;
  strayed := exists (select from billing.usage_event_default where ended_at >= since and ended_at < until);
  if strayed then
    -- Rows cannot be deleted here, so the default partition is replaced and its rows are sorted anew.
    alter table billing.usage_event detach partition billing.usage_event_default;
    alter table billing.usage_event_default rename to usage_event_strayed;
    create table billing.usage_event_default (like billing.usage_event including all);
    alter table billing.usage_event attach partition billing.usage_event_default default;
  end if;
  -- Made apart and then attached: that locks out neither readers nor writers of the other partitions.
  execute format('create table billing.%I (like billing.usage_event including all)', part);
  execute format('alter table billing.usage_event attach partition billing.%I for values from (%L) to (%L)',
                 part, since, until);
  if strayed then
    insert into billing.usage_event select * from billing.usage_event_strayed;
    drop table billing.usage_event_strayed;
  end if;
  return true;
end $$;
comment on function billing.ensure_usage_partition(date) is
  'Makes the partition of one UTC day, and says whether it did; takes its rows out of the default partition.';

-- Roll-up: what dashboards read. --------------------------------------------------------------------------

create table billing.usage_minute (
  organisation_id  bigint      not null,
  minute           timestamptz not null,
  project_id       bigint      not null,
  key_id           text        not null,
  model            text        not null,
  price_version    bigint      not null,
  outcome          text        not null,
  requests         bigint      not null,
  input_tokens     bigint      not null,
  cached_tokens    bigint      not null,
  output_tokens    bigint      not null,
  reasoning_tokens bigint      not null,
  cost_nano_usd    bigint      not null,
  constraint usage_minute_identity
    primary key (organisation_id, minute, project_id, key_id, model, price_version, outcome)
) with (fillfactor = 70);
comment on table  billing.usage_minute is 'Sums of usage_event by the minute of ended_at, written in the transaction that adds the events.';
comment on column billing.usage_minute.minute is 'The minute''s beginning';
comment on column billing.usage_minute.cost_nano_usd is 'Nano-dollars';

-- Ledger: double entry. -----------------------------------------------------------------------------------

create table billing.account_kind (
  kind    text primary key,
  meaning text not null
);
comment on table billing.account_kind is 'Every kind of account there may be.';
insert into billing.account_kind (kind, meaning) values
  ('receivable', 'What the organisation owes us for usage that is not paid yet'),
  ('revenue',    'What we earned from the organisation; negative, as what is earned is owed by somebody');

create table billing.account (
  id              bigint generated always as identity primary key,
  organisation_id bigint not null,
  kind            text   not null references billing.account_kind,
  posted_nano_usd bigint not null,
  constraint account_identity unique (organisation_id, kind)
) with (fillfactor = 50);
comment on table  billing.account is 'Balances; one account per organisation and kind.';
comment on column billing.account.posted_nano_usd is 'Nano-dollars: the sum of the account''s entries';

create table billing.ledger_transaction (
  id           bigint      generated by default as identity primary key,
  ref          text        not null constraint ledger_transaction_ref unique,
  kind         text        not null,
  period_start timestamptz not null,
  period_end   timestamptz not null,
  booked_at    timestamptz not null default now(),
  constraint ledger_transaction_kind check (kind in ('usage')),
  constraint ledger_transaction_period check (period_start <= period_end)
);
comment on table  billing.ledger_transaction is 'One movement of money, whole or not at all; its entries sum to zero.';
comment on column billing.ledger_transaction.ref is 'Why it was booked, once: ship:<journal>:<bytes shipped> for usage';
comment on column billing.ledger_transaction.kind is 'usage: requests, charged to what their organisation owes';
comment on column billing.ledger_transaction.period_start is 'When the earliest of what it books happened';
comment on column billing.ledger_transaction.period_end is 'When the latest of what it books happened';

create table billing.entry (
  transaction_id  bigint not null references billing.ledger_transaction,
  account_id      bigint not null references billing.account,
  amount_nano_usd bigint not null,
  constraint entry_identity primary key (transaction_id, account_id),
  constraint entry_moves_something check (amount_nano_usd <> 0)
);
create index entry_by_account on billing.entry (account_id, transaction_id);
comment on table  billing.entry is 'What a transaction adds to one account.';
comment on column billing.entry.amount_nano_usd is 'Nano-dollars, signed';

create trigger append_only before update or delete on billing.ledger_transaction
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.ledger_transaction
  for each statement execute function billing.refuse_change();
create trigger append_only before update or delete on billing.entry
  for each row execute function billing.refuse_change();
create trigger append_only_whole before truncate on billing.entry
  for each statement execute function billing.refuse_change();

-- Checked at commit, once per transaction and not once per entry: a batch has hundreds of entries.
create function billing.check_transaction() returns trigger language plpgsql as $$
declare
  entries  bigint;
  leftover numeric;
begin
  select count(*), coalesce(sum(amount_nano_usd), 0) into entries, leftover
  from billing.entry where transaction_id = new.id;
  if entries = 0 or leftover <> 0 then
    raise exception 'ledger transaction % has % entries that sum to % nano-dollars, not to 0', new.ref, entries, leftover
      using errcode = 'check_violation', constraint = 'ledger_transaction_balances';
  end if;
  return null;
end $$;
create constraint trigger balances after insert on billing.ledger_transaction
  deferrable initially deferred for each row execute function billing.check_transaction();

-- And entries come by whole balanced sets, so that none can be added to an old transaction afterwards.
create function billing.check_entries() returns trigger language plpgsql as $$
declare
  unbalanced bigint;
begin
  select transaction_id into unbalanced
  from added group by transaction_id having sum(amount_nano_usd) <> 0 limit 1;
  if found then
    raise exception 'entries of ledger transaction % do not sum to 0; insert them all in one statement', unbalanced
      using errcode = 'check_violation', constraint = 'entry_balances';
  end if;
  return null;
end $$;
create trigger balances after insert on billing.entry referencing new table as added
  for each statement execute function billing.check_entries();

-- The shipper's memory. -----------------------------------------------------------------------------------

create table billing.journal_cursor (
  journal       text        primary key,
  shipped_bytes bigint      not null,
  records       bigint      not null,
  shipped_at    timestamptz not null default now()
) with (fillfactor = 50);
comment on table  billing.journal_cursor is 'How far each journal file is in this database; moved in the transaction that adds its events.';
comment on column billing.journal_cursor.journal is '<boot id>-<part>, as the file''s header says';
comment on column billing.journal_cursor.shipped_bytes is 'Position behind the last frame that was taken over';
comment on column billing.journal_cursor.records is 'Frames taken over, those set aside included';

create table billing.rejected_frame (
  journal     text        not null,
  position    bigint      not null,
  body        bytea       not null,
  problem     text        not null,
  rejected_at timestamptz not null default now(),
  constraint rejected_frame_identity primary key (journal, position)
);
comment on table  billing.rejected_frame is 'Whole frames that are no usage record: a defect, kept here so that it stops nothing and nothing is lost.';
comment on column billing.rejected_frame.position is 'Where the frame begins in its file, in bytes';
comment on column billing.rejected_frame.body is 'The frame''s msgpack body';
