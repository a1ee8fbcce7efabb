-- name: as_owner
-- Act with the rights of whoever connected: they include seeing and ending that account's other sessions.
set role none

-- name: lock
-- Lead, where nobody else does; the lock ends with the session.
select pg_try_advisory_lock($1)

-- name: beat
-- Say something: others see when a session last did.
select 1

-- name: holder
-- Who leads, and when that session last said something.
select pid, extract(epoch from state_change)::float8 as spoke_s
from pg_locks join pg_stat_activity using (pid)
where locktype = 'advisory' and granted and objsubid = 1
  and pg_locks.database = (select oid from pg_database where datname = current_database())
  and classid::int8 << 32 | objid::int8 = $1

-- name: end
-- End a session that holds the lock and does not live.
select pg_terminate_backend($1)
