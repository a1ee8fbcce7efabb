-- name: limit_waiting
-- Taking a day away waits for its readers and for shippers, and everyone after us would wait behind us.
set local lock_timeout = '5s'

-- name: take_turn
-- One process at a time files days or brings them back; it ends with the connection.
select pg_try_advisory_lock(7306001204)

-- name: end_turn
select pg_advisory_unlock(7306001204)

-- name: held_days
-- Days with a partition before $1, oldest first; not those that were brought back to be looked at.
select to_date(right(relname, 8), 'YYYYMMDD') as day
from pg_inherits join pg_class on pg_class.oid = inhrelid
where inhparent = 'billing.usage_event'::regclass
  and relname ~ '^usage_event_[0-9]{8}$'
  and to_date(right(relname, 8), 'YYYYMMDD') < $1
  and not exists (select from billing.archive
                  where day = to_date(right(relname, 8), 'YYYYMMDD') and restored_at is not null and kept_until > now())
order by 1

-- name: is_held
select to_regclass('billing.' || billing.usage_partition($1::date)) is not null

-- name: count_day
select count(*) from billing.usage_event where ended_at >= $1 and ended_at < $2

-- name: events_of_day
-- Every column, as parquet.COLUMNS has them.
select
  event_id, ended_at, organisation_id, project_id, key_id, request_id, client_request_id, surface, model, price_version,
  input_tokens, cached_tokens, output_tokens, reasoning_tokens, outcome, status, streamed, queue_us, first_token_us,
  duration_us, replica, cost_nano_usd, ledger_transaction_id, images, audio_ms, documents, batch, endpoint, funding,
  wallet_project_id, admit_us, wait_us, wake_us, retries, policy, candidates, pool_version, hedged
from billing.usage_event
where ended_at >= $1 and ended_at < $2
order by ended_at, event_id

-- name: next_part
-- The one that a broken-off try left, or a new one.
select coalesce(max(part) filter (where detached_at is null), max(part) + 1, 1) from billing.archive where day = $1

-- name: file_day
select billing.file_usage_day($1, $2, $3, $4, $5, $6)

-- name: detach_day
select billing.detach_usage_day($1, $2)

-- name: drop_empty_day
select billing.drop_empty_usage_day($1)

-- name: listed
-- Every file, the day's latest part last.
select day, part, file, size_bytes, sha256, events, cost_nano_usd, exported_at, detached_at, restored_at, kept_until
from billing.archive
where $1::date is null or day = $1
order by day, part

-- name: begin_restoring
select billing.begin_restoring($1, $2)

-- name: finish_restoring
select billing.finish_restoring($1, $2, $3)
