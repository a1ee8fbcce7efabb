-- name: show_up
-- This process lives. True when it counts as settled all the same.
insert into billing.gateway_boot as boot (boot_id, host) values ($1, $2)
on conflict (boot_id) do update set seen_at = now()
returning boot.settled_at is not null

-- name: settle
-- The process is gone, and all it wrote is in this database. It may be the first word of it that comes here.
insert into billing.gateway_boot as boot (boot_id, host, settled_at) values ($1, $2, now())
on conflict (boot_id) do update set settled_at = now() where boot.settled_at is null

-- name: unsettled
-- Processes that are not known to be over, with what they hold; locked, so that none shows up meanwhile.
select
  boot_id, host, seen_at, extract(epoch from now() - seen_at)::double precision as silent_s,
  (select coalesce(sum(granted_nano_usd - settled_nano_usd), 0)::bigint
   from billing.lease where lease.boot_id = boot.boot_id and released_at is null) as lent_nano_usd
from billing.gateway_boot as boot
where settled_at is null
order by seen_at, boot_id
for update of boot

-- name: give_up
update billing.gateway_boot set settled_at = now() where boot_id = any($1) and settled_at is null
