-- name: cursors
select journal, shipped_bytes from billing.journal_cursor

-- name: stage_record
-- What journals on this host hold; for one transaction.
create temporary table reconcile_record (
  journal text, begins bigint, ends bigint, shipped boolean, event_id uuid, ended_at timestamptz,
  organisation_id bigint, project_id bigint, key_id text, request_id text, model text, price_version bigint,
  outcome text, endpoint text, replica text, input_tokens bigint, cached_tokens bigint, output_tokens bigint,
  duration_us bigint, cost_nano_usd bigint, hedged boolean
) on commit drop

-- name: stage_work
-- What engines on this host counted; for one transaction.
create temporary table reconcile_work (
  replica text, boot text, request_id text, ended_ms bigint, input_tokens bigint, cached_tokens bigint,
  output_tokens bigint, exchanges bigint, aborted boolean
) on commit drop

-- name: join_in_bulk
-- Everything here is joined with everything, and tables that just grew are taken for small ones otherwise.
set local enable_nestloop = off

-- name: analyse
analyze reconcile_record, reconcile_work

-- name: shipped_without_event
-- Behind the cursor, and neither an event, here or in a file, nor set aside.
select record.request_id, record.journal, record.begins, record.cost_nano_usd
from reconcile_record as record
where shipped and record.ended_at >= $1 and record.ended_at < $2
  and not exists (select from billing.usage_event as event
                  where event.ended_at = record.ended_at and event.event_id = record.event_id
                    and event.ended_at >= $1 and event.ended_at < $2)
  and not exists (select from billing.rejected_frame as frame
                  where frame.journal = record.journal and frame.position = record.begins)
  and not exists (select from billing.archived_events
                  where day = (record.ended_at at time zone 'UTC')::date
                    and minute = date_trunc('minute', record.ended_at) and record.event_id = any(event_ids))
order by record.journal, record.begins

-- name: events_unlike_records
select
  event.request_id,
  event.organisation_id,
  format('%s, %s input (%s cached), %s output, %s nano-dollars', event.outcome, event.input_tokens,
         event.cached_tokens, event.output_tokens, event.cost_nano_usd) as found,
  format('%s, %s input (%s cached), %s output, %s nano-dollars', record.outcome, record.input_tokens,
         record.cached_tokens, record.output_tokens, record.cost_nano_usd) as expected
from reconcile_record as record
join billing.usage_event as event
  on event.event_id = record.event_id and event.ended_at = record.ended_at
where shipped and event.ended_at >= $1 and event.ended_at < $2
  and (event.organisation_id, event.project_id, event.key_id, event.request_id, event.model, event.price_version,
       event.outcome, event.endpoint, event.replica, event.input_tokens, event.cached_tokens, event.output_tokens,
       event.cost_nano_usd)
      is distinct from
      (record.organisation_id, record.project_id, record.key_id, record.request_id, record.model,
       record.price_version, record.outcome, record.endpoint, record.replica, record.input_tokens,
       record.cached_tokens, record.output_tokens, record.cost_nano_usd)
order by event.request_id

-- name: rejected
-- Frames that shipping could not read as records.
select journal, position, body, problem
from billing.rejected_frame
where rejected_at >= $1 and rejected_at < $2
order by journal, position

-- name: work_against_records
-- Receipts that ended in the window and are not just what is charged. A request has one record, wherever it is;
-- it may have ended a while before or after the engine was done with it.
with counted as (
  select
    request_id, min(replica) as replica, max(ended_ms) as ended_ms, sum(input_tokens)::bigint as input_tokens,
    sum(cached_tokens)::bigint as cached_tokens, sum(output_tokens)::bigint as output_tokens,
    (sum(exchanges) - count(*) + count(distinct (replica, boot)))::bigint as exchanges
  from (
    -- The last receipt of a request at one start of an engine has all of it.
    select distinct on (replica, boot, request_id) * from reconcile_work
    order by replica, boot, request_id, ended_ms desc, exchanges desc
  ) as last
  group by request_id
), charged as (
  select request_id, outcome, hedged, input_tokens, cached_tokens, output_tokens
  from billing.usage_event
  where ended_at >= $1::timestamptz - interval '1 day' and ended_at < $2::timestamptz + interval '1 day'
  union all
  select request_id, outcome, hedged, input_tokens, cached_tokens, output_tokens
  from reconcile_record
  where not shipped
)
select
  counted.request_id, counted.replica, counted.exchanges,
  timestamptz 'epoch' + counted.ended_ms * interval '1 millisecond' as counted_at,
  counted.input_tokens as counted_input, counted.cached_tokens as counted_cached,
  counted.output_tokens as counted_output,
  charged.outcome, charged.hedged, charged.input_tokens, charged.cached_tokens, charged.output_tokens,
  unrecorded.reason as unrecorded
from counted
left join charged using (request_id)
left join billing.unrecorded_request as unrecorded using (request_id)
where counted.ended_ms >= extract(epoch from $1::timestamptz) * 1000
  and counted.ended_ms < extract(epoch from $2::timestamptz) * 1000
  and counted.input_tokens + counted.output_tokens > 0
  -- Of days whose events are in files there is no record to compare with; the day before and after for clocks.
  and not exists (select from billing.archive
                  where detached_at is not null and restored_at is null
                    and day between ((timestamptz 'epoch' + counted.ended_ms * interval '1 millisecond')
                                     at time zone 'UTC')::date - 1
                                and ((timestamptz 'epoch' + counted.ended_ms * interval '1 millisecond')
                                     at time zone 'UTC')::date + 1)
  and (charged.outcome is null
       or charged.outcome not in ('done', 'client_gone', 'credit_ended', 'recovered')
       or (counted.input_tokens, counted.cached_tokens, counted.output_tokens)
          is distinct from (charged.input_tokens, charged.cached_tokens, charged.output_tokens))
order by counted.request_id

-- name: records_without_work
-- Charged, at engines whose receipts are here, and no receipt of it.
select
  request_id, replica, ended_at, ended_at - duration_us * interval '1 microsecond' as began_at, input_tokens,
  cached_tokens, output_tokens
from billing.usage_event as event
where ended_at >= $1 and ended_at < $2 and replica = any($3::text[])
  and outcome in ('done', 'client_gone', 'credit_ended', 'recovered') and input_tokens + output_tokens > 0
  and not exists (select from reconcile_work as work where work.request_id = event.request_id)
order by request_id

-- name: in_flight_work
select count(distinct request_id) from reconcile_work
where ended_ms >= extract(epoch from $1::timestamptz) * 1000

-- name: events_examined
select count(*) from billing.usage_event where ended_at >= $1 and ended_at < $2

-- name: records_examined
select count(*) from reconcile_record where ended_at >= $1 and ended_at < $2

-- name: work_examined
select count(distinct request_id) from reconcile_work
where ended_ms >= extract(epoch from $1::timestamptz) * 1000
  and ended_ms < extract(epoch from $2::timestamptz) * 1000

-- name: explain_roll_up
-- What belongs into one row: journal records that are no events, or else the events themselves.
with missing as (
  select request_id from reconcile_record as record
  where shipped and organisation_id = $1 and date_trunc('minute', ended_at) = $2 and project_id = $3
    and key_id = $4 and model = $5 and price_version = $6 and outcome = $7 and endpoint = $8
    and not exists (select from billing.usage_event as event
                    where event.ended_at = record.ended_at and event.event_id = record.event_id)
)
select request_id from missing
union
select request_id from billing.usage_event
where not exists (select from missing)
  and organisation_id = $1 and ended_at >= $2 and ended_at < $2::timestamptz + interval '1 minute' and project_id = $3
  and key_id = $4 and model = $5 and price_version = $6 and outcome = $7 and endpoint = $8

-- name: explain_booking
-- What a ledger transaction booked, as far as it can be told: journal records of its batch that are no events,
-- or else the events that name it.
with booked as (
  select ref, split_part(ref, ':', 2) as journal, split_part(ref, ':', 3) as batch_end, period_start, period_end
  from billing.ledger_transaction where id = $1
), missing as (
  select request_id from reconcile_record as record, booked
  where shipped and organisation_id = $2 and booked.ref like 'ship:%' and record.journal = booked.journal
    and record.ends <= booked.batch_end::bigint and cost_nano_usd <> 0
    and record.ended_at between period_start and period_end
    and not exists (select from billing.usage_event as event
                    where event.ended_at = record.ended_at and event.event_id = record.event_id)
)
select request_id from missing
union
select request_id from billing.usage_event
where not exists (select from missing) and organisation_id = $2 and ledger_transaction_id = $1
  and ended_at >= coalesce((select period_start from booked), $3)
  and ended_at <= coalesce((select period_end from booked), $4)

-- name: explain_organisation
-- Journal records of an organisation that are behind their cursor and no events.
select request_id from reconcile_record as record
where shipped and organisation_id = $1 and cost_nano_usd <> 0
  and not exists (select from billing.usage_event as event
                  where event.ended_at = record.ended_at and event.event_id = record.event_id)

-- name: charged_intervals
-- Intervals that somebody pays for, and what was charged for each; those that touch the window.
select
  running_interval.id, running_interval.organisation_id, kind, subject, priced_as, started_at, accrued_until,
  coalesce(array_agg(minute_price_version order by minute_price_version)
             filter (where minute_price_version is not null), '{}') as versions,
  coalesce(array_agg(minutes order by minute_price_version)
             filter (where minute_price_version is not null), '{}') as minutes
from billing.running_interval
left join (
  select interval_id, minute_price_version, sum(minutes)::bigint as minutes
  from billing.minute_charge group by 1, 2
) as charge on charge.interval_id = running_interval.id
where running_interval.organisation_id is not null and started_at < $2
  and coalesce(stopped_at, 'infinity') >= $1
group by running_interval.id
order by running_interval.id

-- name: overlapping_intervals
select later.kind, later.subject, earlier.id as earlier, later.id as later
from billing.running_interval as earlier
join billing.running_interval as later using (kind, subject)
where earlier.id <> later.id
  and (earlier.started_at, earlier.id) < (later.started_at, later.id)
  and later.started_at < coalesce(earlier.stopped_at, 'infinity')
  and coalesce(later.stopped_at, 'infinity') > later.started_at
  and coalesce(later.stopped_at, 'infinity') >= $1
order by later.id

-- name: wrong_minute_bookings
-- A ledger transaction for minutes books the charges that name it, and each charge that costs names one.
with charge as (
  select ledger_transaction_id, organisation_id, sum(cost_nano_usd) as cost
  from billing.minute_charge where cost_nano_usd <> 0 group by 1, 2
), booked as (
  select transaction_id as ledger_transaction_id, organisation_id, -sum(amount_nano_usd) as earned
  from billing.entry
  join billing.account on account.id = entry.account_id
  join billing.ledger_transaction on ledger_transaction.id = entry.transaction_id
  where account.kind = 'revenue' and ledger_transaction.kind = 'minutes'
  group by 1, 2
)
select ledger_transaction_id, organisation_id, earned as found, cost as expected
from charge full join booked using (ledger_transaction_id, organisation_id)
where earned is distinct from cost
order by 1, 2

-- name: add_run
insert into billing.reconcile_run (since, until, began_at, took_ms, differences, unbilled_requests, report)
values ($1, $2, $3, $4, $5, $6, $7)
returning id

-- name: last_run
select began_at, until, differences from billing.reconcile_run
where $1::boolean is false or since is null
order by id desc
limit 1

-- name: latest_runs
select id, since, until, began_at, took_ms, differences, unbilled_requests
from billing.reconcile_run order by id desc limit $1

-- name: run_report
select report::text from billing.reconcile_run where id = $1
