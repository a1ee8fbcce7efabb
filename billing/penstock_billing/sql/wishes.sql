-- name: lock_organisation
-- What a person books about one organisation is booked one after the other: each sees what was booked before.
select pg_advisory_xact_lock(7306001, hashint8($1::bigint))

-- name: booked_before
-- What a reference was used for.
select
  booked.id, booked.kind, booked.corrects,
  sum(entry.amount_nano_usd) filter (where entry.amount_nano_usd > 0)::bigint as moved_nano_usd,
  array_agg(distinct account.organisation_id) as organisations,
  max(account.project_id) as project_id,
  (select request_id from billing.refund where transaction_id = booked.id) as request_id,
  (select expires_at from billing.promotion where transaction_id = booked.id) as expires_at
from billing.ledger_transaction as booked
join billing.entry on entry.transaction_id = booked.id
join billing.account on account.id = entry.account_id
where booked.ref = $1
group by booked.id
