-- name: take
-- Insert the claim; a row only when there was none. The process is noted first, so that whoever ships what it
-- leaves behind can say that it is gone.
with process as (
  insert into billing.gateway_boot (boot_id, host) values ($4, $5) on conflict do nothing
)
insert into admission.claim (id, fingerprint, organisation_id, boot_id, request_id, metered, expires_at)
values ($1, $2, $3, $4, $6, $7, now() + $8)
on conflict do nothing
returning true

-- name: look
-- The claim that was in the way. `settled`: its process is gone and all it wrote is in this database.
select claim.fingerprint, claim.boot_id, claim.request_id, claim.metered, claim.state, claim.status,
       claim.headers, claim.body, claim.cost_nano_usd,
       extract(epoch from now() - claim.claimed_at)::float8 as age_s, claim.expires_at <= now() as expired,
       claim.state = 'running' and exists (
         select from billing.gateway_boot as boot
         where boot.boot_id = claim.boot_id and boot.settled_at is not null) as settled
from admission.claim as claim
where claim.id = $1

-- name: forget
-- A claim whose time is up is as good as none.
delete from admission.claim where id = $1 and expires_at <= now()

-- name: charged
-- What an execution was charged. Asked of dead processes' requests only, once all their usage is here.
select coalesce(sum(cost_nano_usd), 0)::bigint
from billing.usage_event where organisation_id = $1 and request_id = $2

-- name: take_over
-- From a process that is gone without having charged anything; a row only when nobody else was faster.
with process as (
  insert into billing.gateway_boot (boot_id, host) values ($4, $5) on conflict do nothing
)
update admission.claim set boot_id = $4, request_id = $6, claimed_at = now(), expires_at = now() + $7
where id = $1 and boot_id = $2 and request_id = $3 and state = 'running'
returning true

-- name: finish
-- How an execution ended. Does nothing to a claim that is no longer this execution's.
update admission.claim
set state = $3, status = $4, headers = $5, body = $6, cost_nano_usd = $7, expires_at = now() + $8
where id = $1 and request_id = $2 and state = 'running'

-- name: release
-- It cost nothing and took no effect: the next one with this key executes.
delete from admission.claim where id = $1 and request_id = $2 and state = 'running'

-- name: release_all
-- The same for claims that were perhaps taken: arrays of ids and of the requests that took them.
delete from admission.claim as claim using unnest($1::bytea[], $2::text[]) as doubtful (id, request_id)
where claim.id = doubtful.id and claim.request_id = doubtful.request_id and claim.state = 'running'

-- name: forget_expired
-- A bounded number of rows at once, so that nobody waits for it.
delete from admission.claim where id in
  (select id from admission.claim where expires_at <= now() order by expires_at limit $1 for update skip locked)
