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
  cost_nano_usd     bigint,
  images            integer,
  audio_ms          integer,
  documents         integer,
  batch             boolean,
  endpoint          text,
  funding           text,
  wallet_project_id bigint,
  admit_us          bigint,
  wait_us           bigint,
  wake_us           bigint,
  retries           integer,
  policy            text,
  candidates        integer,
  pool_version      integer,
  hedged            boolean
) on commit delete rows

-- name: add_cursor
-- A journal seen for the first time; another shipper may be faster.
insert into billing.journal_cursor (journal, shipped_bytes, records) values ($1, 0, 0)
on conflict (journal) do nothing

-- name: lock_cursor
-- One shipper at a time goes on with a journal. Also the database's clock, and an id in case money moves.
-- Hours and days are not summed up meanwhile (roll_ups.sql takes the lock alone), so that take_over knows
-- which of them an event comes too late for.
select
  pg_advisory_xact_lock_shared(7306001203)::text as marks_stand,
  shipped_bytes,
  shipped_at,
  clock_timestamp() as now,
  nextval('billing.ledger_transaction_id_seq') as transaction_id
from billing.journal_cursor
where journal = $1
for update

-- name: take_over
-- Events and roll-ups in one statement: the roll-ups count just the events that this statement added, so a
-- replay changes nothing. Rows are locked in key order, as every shipper does: no deadlocks.
with added as (
  insert into billing.usage_event (
    event_id, ended_at, organisation_id, project_id, key_id, request_id, client_request_id, surface, model,
    price_version, input_tokens, cached_tokens, output_tokens, reasoning_tokens, outcome, status, streamed,
    queue_us, first_token_us, duration_us, replica, cost_nano_usd, ledger_transaction_id,
    images, audio_ms, documents, batch, endpoint, funding, wallet_project_id,
    admit_us, wait_us, wake_us, retries, policy, candidates, pool_version, hedged
  )
  select
    event_id, timestamptz 'epoch' + ended_ms * interval '1 millisecond', organisation_id, project_id, key_id,
    request_id, client_request_id, surface, model, price_version, input_tokens, cached_tokens, output_tokens,
    reasoning_tokens, outcome, status, streamed, queue_us, first_token_us, duration_us, replica,
    cost_nano_usd, case when cost_nano_usd <> 0 then $1::bigint end,
    images, audio_ms, documents, batch, endpoint, funding, wallet_project_id,
    admit_us, wait_us, wake_us, retries, policy, candidates, pool_version, hedged
  from usage_stage
  -- Of days whose events are in a file there are the ids to tell what comes again; other records skip the look.
  where timestamptz 'epoch' + ended_ms * interval '1 millisecond' >= (
      select coalesce(max(day) + 1, date 'epoch')::timestamp at time zone 'UTC'
      from billing.archive where detached_at is not null and restored_at is null
    )
    or not exists (
      select from billing.archived_events as filed
      where filed.day = (timestamp 'epoch' + ended_ms * interval '1 millisecond')::date
        and filed.minute = date_trunc('minute', timestamptz 'epoch' + ended_ms * interval '1 millisecond')
        and usage_stage.event_id = any (filed.event_ids)
    )
  on conflict (ended_at, event_id) do nothing
  returning
    organisation_id, ended_at, project_id, key_id, model, price_version, outcome, endpoint, funding,
    wallet_project_id, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms,
    documents, cost_nano_usd, streamed, first_token_us, duration_us
), by_minute as (
  select
    organisation_id, date_trunc('minute', ended_at) as minute, project_id, key_id, model, price_version,
    outcome, endpoint,
    count(*) as requests, sum(input_tokens) as input_tokens, sum(cached_tokens) as cached_tokens,
    sum(output_tokens) as output_tokens, sum(reasoning_tokens) as reasoning_tokens,
    sum(images) as images, sum(audio_ms) as audio_ms, sum(documents) as documents,
    sum(cost_nano_usd) as cost_nano_usd
  from added
  group by 1, 2, 3, 4, 5, 6, 7, 8
  order by 1, 2, 3, 4, 5, 6, 7, 8
), minutes as (
  insert into billing.usage_minute as total (
    organisation_id, minute, project_id, key_id, model, price_version, outcome, endpoint,
    requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
    cost_nano_usd
  )
  select * from by_minute
  on conflict (organisation_id, minute, project_id, key_id, model, price_version, outcome, endpoint) do update set
    requests         = total.requests         + excluded.requests,
    input_tokens     = total.input_tokens     + excluded.input_tokens,
    cached_tokens    = total.cached_tokens    + excluded.cached_tokens,
    output_tokens    = total.output_tokens    + excluded.output_tokens,
    reasoning_tokens = total.reasoning_tokens + excluded.reasoning_tokens,
    images           = total.images           + excluded.images,
    audio_ms         = total.audio_ms         + excluded.audio_ms,
    documents        = total.documents        + excluded.documents,
    cost_nano_usd    = total.cost_nano_usd    + excluded.cost_nano_usd
), late_hours as (
  insert into billing.usage_hour as total (
    organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint,
    requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
    cost_nano_usd
  )
  select
    organisation_id, date_trunc('hour', minute, 'UTC'), project_id, key_id, model, price_version, outcome,
    endpoint, sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
    sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd)
  from by_minute
  where minute < (select rolled_until from billing.roll_up_mark where level = 'hour')
  group by 1, 2, 3, 4, 5, 6, 7, 8
  order by 1, 2, 3, 4, 5, 6, 7, 8
  on conflict (organisation_id, hour, project_id, key_id, model, price_version, outcome, endpoint) do update set
    requests         = total.requests         + excluded.requests,
    input_tokens     = total.input_tokens     + excluded.input_tokens,
    cached_tokens    = total.cached_tokens    + excluded.cached_tokens,
    output_tokens    = total.output_tokens    + excluded.output_tokens,
    reasoning_tokens = total.reasoning_tokens + excluded.reasoning_tokens,
    images           = total.images           + excluded.images,
    audio_ms         = total.audio_ms         + excluded.audio_ms,
    documents        = total.documents        + excluded.documents,
    cost_nano_usd    = total.cost_nano_usd    + excluded.cost_nano_usd
), late_days as (
  insert into billing.usage_day as total (
    organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint,
    requests, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
    cost_nano_usd
  )
  select
    organisation_id, date_trunc('day', minute, 'UTC'), project_id, key_id, model, price_version, outcome,
    endpoint, sum(requests), sum(input_tokens), sum(cached_tokens), sum(output_tokens), sum(reasoning_tokens),
    sum(images), sum(audio_ms), sum(documents), sum(cost_nano_usd)
  from by_minute
  where minute < (select rolled_until from billing.roll_up_mark where level = 'day')
  group by 1, 2, 3, 4, 5, 6, 7, 8
  order by 1, 2, 3, 4, 5, 6, 7, 8
  on conflict (organisation_id, day, project_id, key_id, model, price_version, outcome, endpoint) do update set
    requests         = total.requests         + excluded.requests,
    input_tokens     = total.input_tokens     + excluded.input_tokens,
    cached_tokens    = total.cached_tokens    + excluded.cached_tokens,
    output_tokens    = total.output_tokens    + excluded.output_tokens,
    reasoning_tokens = total.reasoning_tokens + excluded.reasoning_tokens,
    images           = total.images           + excluded.images,
    audio_ms         = total.audio_ms         + excluded.audio_ms,
    documents        = total.documents        + excluded.documents,
    cost_nano_usd    = total.cost_nano_usd    + excluded.cost_nano_usd
), late_earned as (
  insert into billing.earned_hour as total (hour, model, organisation_id, requests, tokens, cost_nano_usd)
  select hour, model, organisation_id, sum(requests), sum(tokens), sum(cost_nano_usd)
  from (
    select date_trunc('hour', minute, 'UTC') as hour, model, organisation_id, requests,
      input_tokens + output_tokens as tokens, cost_nano_usd
    from by_minute
    where minute < (select rolled_until from billing.roll_up_mark where level = 'hour')
  ) as late
  group by grouping sets ((hour, model), (hour, organisation_id))
  order by hour, model, organisation_id
  on conflict (hour, model, organisation_id) do update set
    requests      = total.requests      + excluded.requests,
    tokens        = total.tokens        + excluded.tokens,
    cost_nano_usd = total.cost_nano_usd + excluded.cost_nano_usd
), spent as (
  insert into billing.spend_month as total (organisation_id, project_id, key_id, month, cost_nano_usd)
  select
    organisation_id, project_id, key_id, date_trunc('month', minute, 'UTC')::date, sum(cost_nano_usd)
  from by_minute
  where cost_nano_usd <> 0
  group by 1, 2, 3, 4
  order by 1, 2, 3, 4
  on conflict (organisation_id, project_id, key_id, month) do update
    set cost_nano_usd = total.cost_nano_usd + excluded.cost_nano_usd
), speeds as (
  -- Every tenant of a model adds to the same few rows; each connection has its own, so that none waits for another.
  insert into billing.speed_day as total (model, day, measure, bucket, shard, requests)
  select model, (ended_at at time zone 'UTC')::date, measure, bucket, pg_backend_pid() % 8, count(*)
  from added, billing.speeds_of(streamed, output_tokens, first_token_us, duration_us)
  where outcome = 'done'
  group by 1, 2, 3, 4, 5
  order by 1, 2, 3, 4, 5
  on conflict (model, day, measure, bucket, shard) do update
    set requests = total.requests + excluded.requests
)
select
  organisation_id,
  funding,
  wallet_project_id,
  count(*) as records,
  sum(cost_nano_usd)::bigint as cost_nano_usd,
  min(ended_at) as earliest,
  max(ended_at) as latest
from added
group by organisation_id, funding, wallet_project_id

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
