-- name: lock_subject
-- One writer of a subject's intervals at a time, also before there is a row to lock.
select pg_advisory_xact_lock(hashtextextended('interval ' || $1::text || ' ' || $2::text, 0))

-- name: open_of_subject
-- The one that has not stopped.
select * from billing.running_interval where kind = $1 and subject = $2 and stopped_at is null for update

-- name: add
-- Never before the subject's last one ended: no minute is charged twice.
insert into billing.running_interval (
  organisation_id, project_id, kind, subject, priced_as, model, endpoint, holder, started_at, seen_at, accrued_until
)
select $1, $2, $3, $4, $5, $6, $7, $8, start, start, start
from (select greatest($9::timestamptz, max(stopped_at)) as start
      from billing.running_interval where kind = $3 and subject = $4) as after_all_before
returning *

-- name: see
-- Proof that a holder's subjects were ready; nothing moves backwards.
update billing.running_interval
set seen_at = $4
where kind = $1 and subject = any($2::text[]) and holder = $3 and stopped_at is null and seen_at < $4

-- name: held
-- The subjects that a holder vouches for.
select subject from billing.running_interval where kind = $1 and holder = $2 and stopped_at is null

-- name: stop
-- At the moment told, but not before what was proven, nor before what is charged.
update billing.running_interval
set stopped_at = greatest($4::timestamptz, seen_at, accrued_until)
where kind = $1 and subject = $2 and holder is not distinct from $3 and stopped_at is null
returning *

-- name: stop_at_last_proof
-- One whose holder is gone ended when it was last seen.
update billing.running_interval set stopped_at = seen_at where id = $1

-- name: abandoned
-- What other holders left open.
select id, kind, subject from billing.running_interval
where stopped_at is null and holder is not null and holder <> $1
order by kind, subject

-- name: between
-- An organisation's intervals that touch a period, oldest first.
select *
from billing.running_interval
where organisation_id is not distinct from $1 and started_at < $3 and coalesce(stopped_at, 'infinity') > $2
order by started_at, id

-- name: open_subjects
select subject from billing.running_interval where kind = $1 and stopped_at is null
