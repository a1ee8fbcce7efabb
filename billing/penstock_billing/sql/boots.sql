-- name: show_up
-- This process lives. True when it counts as settled all the same.
insert into billing.gateway_boot as boot (boot_id, host) values ($1, $2)
on conflict (boot_id) do update set seen_at = now()
returning boot.settled_at is not null

-- name: settle
-- The process is gone, and all it wrote is in this database. It may be the first word of it that comes here.
insert into billing.gateway_boot as boot (boot_id, host, settled_at) values ($1, $2, now())
on conflict (boot_id) do update set settled_at = now() where boot.settled_at is null
