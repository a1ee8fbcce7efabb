-- name: create_stage
-- Where a batch is copied to; per connection, empty again after each transaction.
create temporary table if not exists usage_stage (
  event_id          uuid,
  ended_ms          bigint,
  organisation_id   bigint,
  project_id        bigint,
  key_id            text,
  request_id        text,
  client_request_id text,
  surface           text,
  model             text,
  price_version     bigint,
  input_tokens      integer,
  cached_tokens     integer,
  output_tokens     integer,
  reasoning_tokens  integer,
  outcome           text,
  status            smallint,
  streamed          boolean,
  queue_us          bigint,
  first_token_us    bigint,
  duration_us       bigint,
  replica           text,
  cost_nano_usd     bigint
) on commit delete rows

-- name: add_cursor
-- A journal seen for the first time; another shipper may be faster.
insert into billing.journal_cursor (journal, shipped_bytes, records) values ($1, 0, 0)
on conflict (journal) do nothing

-- name: lock_cursor
-- One shipper at a time goes on with a journal. Also the database's clock, and an id in case money moves.
select
  shipped_bytes,
  shipped_at,
  clock_timestamp() as now,
  nextval('billing.ledger_transaction_id_seq') as transaction_id
from billing.journal_cursor
where journal = $1
for update

-- name: take_over
-- Events and roll-up in one statement: the roll-up counts just the events that this statement added, so a
-- replay changes nothing. Roll-up rows are locked in key order, as every shipper does: no deadlocks.
with added as (
  insert into billing.usage_event (
    event_id, ended_at, organisation_id, project_id, key_id, request_id, client_request_id, surface, model,
    price_version, input_tokens, cached_tokens, output_tokens, reasoning_tokens, outcome, status, streamed,
    queue_us, first_token_us, duration_us, replica, cost_nano_usd, ledger_transaction_id
  )
  select
    event_id, timestamptz 'epoch' + ended_ms * interval '1 millisecond', organisation_id, project_id, key_id,
    request_id, client_request_id, surface, model, price_version, input_tokens, cached_tokens, output_tokens,
    reasoning_tokens, outcome, status, streamed, queue_us, first_token_us, duration_us, replica,
    cost_nano_usd, case when cost_nano_usd <> 0 then $1::bigint end
  from usage_stage
  on conflict (ended_at, event_id) do nothing
  returning
    organisation_id, ended_at, project_id, key_id, model, price_version, outcome,
    input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_nano_usd
), rolled_up as (
  insert into billing.usage_minute as total (
    organisation_id, minute, project_id, key_id, model, price_version, outcome,
    requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, cost_nano_usd
  )
  select
    organisation_id, date_trunc('minute', ended_at), project_id, key_id, model, price_version, outcome,
    count(*), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
    sum(cost_nano_usd)
  from added
  group by 1, 2, 3, 4, 5, 6, 7
  order by 1, 2, 3, 4, 5, 6, 7
  on conflict (organisation_id, minute, project_id, key_id, model, price_version, outcome) do update set
    requests         = total.requests         + excluded.requests,
    input_tokens     = total.input_tokens     + excluded.input_tokens,
    cached_tokens    = total.cached_tokens    + excluded.cached_tokens,
    output_tokens    = total.output_tokens    + excluded.output_tokens,
    reasoning_tokens = total.reasoning_tokens + excluded.reasoning_tokens,
    cost_nano_usd    = total.cost_nano_usd    + excluded.cost_nano_usd
)
select
  organisation_id,
  count(*) as records,
  sum(cost_nano_usd)::bigint as cost_nano_usd,
  min(ended_at) as earliest,
  max(ended_at) as latest
from added
group by organisation_id

-- name: reject
-- Frames that are no usage record, kept for a person to look at.
insert into billing.rejected_frame (journal, position, body, problem)
select $1, * from unnest($2::bigint[], $3::bytea[], $4::text[])
on conflict (journal, position) do nothing

-- name: move_cursor
-- In the same transaction as what it says is taken over.
update billing.journal_cursor
set shipped_bytes = $2, records = records + $3, shipped_at = now()
where journal = $1
