-- name: requests
-- One pass over the events of a window: what each organisation was charged for each model, and what the same
-- requests would cost; adapters (base:name@version) cost what their base does. Request by request, as each is rounded by itself: no sum of tokens gives the same.
with proposed as (
  select * from unnest(
    $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bigint[], $9::bigint[], $10::bigint[], $11::integer[]
  ) as offer (model, input_pico_usd, cached_input_pico_usd, output_pico_usd, image_pico_usd, audio_second_pico_usd,
              document_pico_usd, batch_discount_ppm)
)
select
  organisation_id,
  event.model,
  proposed.model is not null as proposed,
  count(*) as requests,
  sum(cost_nano_usd)::bigint as paid_nano_usd,
  sum(case when proposed.model is null then cost_nano_usd else billing.cost_nano_usd(
    outcome, input_tokens, cached_tokens, output_tokens, images, audio_ms, documents, batch,
    input_pico_usd, cached_input_pico_usd, output_pico_usd, image_pico_usd, audio_second_pico_usd,
    document_pico_usd, batch_discount_ppm) end)::bigint as would_pay_nano_usd
from billing.usage_event as event
left join proposed on proposed.model = split_part(event.model, ':', 1)
where ended_at >= $1 and ended_at < $2
  and ($3::bigint[] is null or organisation_id = any ($3))
group by 1, 2, 3
order by 1, 2

-- name: minutes
-- The same for minutes, which are whole and need no rounding. A charge belongs to the window it begins in.
with proposed as (
  select * from unnest($4::text[], $5::text[], $6::bigint[]) as offer (kind, subject, nano_usd_per_minute)
)
select
  organisation_id,
  price.kind,
  price.subject,
  proposed.subject is not null as proposed,
  sum(minutes)::bigint as minutes,
  sum(cost_nano_usd)::bigint as paid_nano_usd,
  sum(case when proposed.subject is null then cost_nano_usd
           else minutes * proposed.nano_usd_per_minute end)::bigint as would_pay_nano_usd
from billing.minute_charge
join billing.minute_price_version as price on price.id = minute_price_version
left join proposed on (proposed.kind, proposed.subject) = (price.kind, price.subject)
where since >= $1 and since < $2
  and ($3::bigint[] is null or organisation_id = any ($3))
group by 1, 2, 3, 4
order by 1, 2, 3

-- name: archived_days
-- Days of the window whose events are in a file only.
select distinct day
from billing.archive
where detached_at is not null and restored_at is null
  and day < ($2::timestamptz at time zone 'UTC') and day + 1 > ($1::timestamptz at time zone 'UTC')
order by day
