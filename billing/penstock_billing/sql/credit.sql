-- name: set_wallet
-- How a wallet pays from now on; what was admitted is paid as it was admitted.
insert into billing.wallet (organisation_id, project_id, funding, strict, owed_max_nano_usd)
values ($1, $2, $3, $4, $5)
on conflict (organisation_id, project_id) do update
  set funding = excluded.funding, strict = excluded.strict, owed_max_nano_usd = excluded.owed_max_nano_usd

-- name: wallets
-- The organisation's own wallet, and every other that has terms or accounts of credit.
with known as (
  select 0::bigint as project_id
  union
  select project_id from billing.wallet where organisation_id = $1
  union
  select project_id from billing.account
  where organisation_id = $1 and kind in ('prepaid', 'promotional', 'lease', 'receivable') and posted_nano_usd <> 0
)
select
  known.project_id,
  wallet.funding,
  coalesce(wallet.strict, false) as strict,
  wallet.owed_max_nano_usd,
  wallet.funding is not null as named,
  coalesce(-sum(posted_nano_usd) filter (where account.kind = 'prepaid'), 0)::bigint as prepaid_nano_usd,
  coalesce(-sum(posted_nano_usd) filter (where account.kind = 'promotional'), 0)::bigint as promotional_nano_usd,
  coalesce(-sum(posted_nano_usd) filter (where account.kind = 'lease'), 0)::bigint as leased_nano_usd,
  coalesce(sum(posted_nano_usd) filter (where account.kind = 'receivable'), 0)::bigint as owed_nano_usd
from known
left join billing.wallet on wallet.organisation_id = $1 and wallet.project_id = known.project_id
left join billing.account on account.organisation_id = $1 and account.project_id = known.project_id
group by known.project_id, wallet.funding, wallet.strict, wallet.owed_max_nano_usd
order by known.project_id

-- name: lock_promotional
-- One at a time counts or changes what is left of a wallet's promotions.
select id from billing.account
where organisation_id = $1 and project_id = $2 and kind = 'promotional'
for update

-- name: promotional
-- Promotional credit of a wallet that is not used, as far as shipped: what is free, and what gateways hold.
select
  coalesce((select -posted_nano_usd from billing.account
            where organisation_id = $1 and project_id = $2 and kind = 'promotional'), 0)::bigint as free_nano_usd,
  coalesce((select sum(greatest(0, promotional_granted_nano_usd - settled_nano_usd)) from billing.lease
            where organisation_id = $1 and project_id = $2 and released_at is null), 0)::bigint as leased_nano_usd

-- name: promotions
-- In the order in which they are used: what expires first, first.
select id, amount_nano_usd, left_nano_usd, expired_nano_usd, expires_at, note, created_at, transaction_id
from billing.promotion
where organisation_id = $1 and project_id = $2
order by expires_at nulls last, id

-- name: add_promotion
insert into billing.promotion
  (organisation_id, project_id, amount_nano_usd, left_nano_usd, expires_at, note, transaction_id)
values ($1, $2, $3, $3, $4, $5, $6)
returning id

-- name: count_promotion
update billing.promotion set left_nano_usd = $2 where id = $1

-- name: note_expired
update billing.promotion
set left_nano_usd = left_nano_usd - $2, expired_nano_usd = expired_nano_usd + $2,
    expired_at = coalesce(expired_at, $3)
where id = $1

-- name: end_promotion
-- It expires now instead of later.
update billing.promotion set expires_at = $3
where organisation_id = $1 and id = $2 and (expires_at is null or expires_at > $3)
returning project_id

-- name: promotion_wallet
select project_id from billing.promotion where organisation_id = $1 and id = $2

-- name: due
-- Wallets with promotions that are over and may not be booked as expired yet.
select distinct organisation_id, project_id from billing.promotion
where expires_at <= $1 and left_nano_usd > 0
order by 1, 2
limit $2
