-- name: note_boot
-- A gateway process, before it holds anything; false once it counts as gone.
with noted as (
  insert into billing.gateway_boot (boot_id, host) values ($1, $2) on conflict (boot_id) do nothing
)
select coalesce((select settled_at is null from billing.gateway_boot where boot_id = $1), true)

-- name: open_lease
-- The open lease of a process and a wallet, made when there is none, and locked. The lock comes first in every
-- change of a lease: one whose commit got no answer is over when the next change can read.
insert into billing.lease as lease (
  boot_id, organisation_id, project_id, granted_nano_usd, promotional_granted_nano_usd, grants, expires_at
)
values ($1, $2, $3, 0, 0, 0, now() + $4)
on conflict (boot_id, organisation_id, project_id) where released_at is null do update set expires_at = excluded.expires_at
returning id, granted_nano_usd, promotional_granted_nano_usd, settled_nano_usd, grants

-- name: lock_lease
-- The same, where there is one.
select id, granted_nano_usd, promotional_granted_nano_usd, settled_nano_usd, grants
from billing.lease
where boot_id = $1 and organisation_id = $2 and project_id = $3 and released_at is null
for update

-- name: open_account
-- Of a wallet that never lent anything. It must be there before it is locked: who locks it as the first of the
-- wallet's accounts, and who makes it as the last, would wait for each other.
insert into billing.account (organisation_id, project_id, kind, posted_nano_usd) values ($1, $2, 'lease', 0)
on conflict (organisation_id, project_id, kind) do nothing

-- name: lock_credit
-- What a wallet has, its accounts locked in key order, after the lease: as shipping does.
select kind, posted_nano_usd
from billing.account
where organisation_id = $1 and project_id = $2 and kind in ('lease', 'prepaid', 'promotional')
order by organisation_id, project_id, kind
for update

-- name: change_lease
-- After its booking, in the same transaction.
update billing.lease
set granted_nano_usd = granted_nano_usd + $2,
    promotional_granted_nano_usd = promotional_granted_nano_usd + $3,
    grants = grants + 1,
    recalled_at = case when $2 > 0 then recalled_at end
where id = $1

-- name: answer_recall
-- There was nothing to give back.
update billing.lease set recalled_at = null where id = $1

-- name: end_lease
update billing.lease set released_at = now(), recalled_at = null where id = $1

-- name: recall
-- Ask other processes for what they hold of a wallet and do not need. Waits for nobody: a lease that is being
-- changed is asked next time.
update billing.lease set recalled_at = now()
where id in (
  select id from billing.lease
  where organisation_id = $1 and project_id = $2 and boot_id <> $3 and released_at is null and recalled_at is null
    and granted_nano_usd > settled_nano_usd
  order by id
  for update skip locked
)

-- name: recalled
-- What others asked this process for.
select organisation_id, project_id from billing.lease
where boot_id = $1 and released_at is null and recalled_at is not null

-- name: recently_used
-- Wallets that gateways hold credit of: a new gateway is soon asked for them.
select distinct organisation_id, project_id from billing.lease
where released_at is null and opened_at > now() - interval '1 day'
limit $1

-- name: orphaned
-- Open leases of processes that are gone and whose journals are shipped to their ends.
select lease.boot_id, lease.organisation_id, lease.project_id
from billing.lease join billing.gateway_boot as boot using (boot_id)
where lease.released_at is null and boot.settled_at is not null
order by lease.id
limit $1

-- name: wallets
-- Every wallet that changed since a time, and what postpaid ones with a limit owe now.
select
  wallet.organisation_id, wallet.project_id, wallet.funding, wallet.strict, wallet.owed_max_nano_usd,
  coalesce(account.posted_nano_usd, 0) as owed_nano_usd
from billing.wallet
left join billing.account on account.organisation_id = wallet.organisation_id
  and account.project_id = wallet.project_id and account.kind = 'receivable'
where wallet.changed_at > $1 or (wallet.funding = 'postpaid' and wallet.owed_max_nano_usd is not null)

-- name: clock
select now()
