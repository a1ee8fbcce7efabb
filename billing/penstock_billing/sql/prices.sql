-- name: lock_list
-- One writer of prices at a time; any constant will do. Held until the transaction ends.
select pg_advisory_xact_lock(7306001201)

-- name: add_changed
-- A new version for each offered model whose price in force differs, or that has none: unless an operator made it.
insert into billing.price_version
  (model, input_pico_usd, cached_input_pico_usd, output_pico_usd, valid_from, origin)
select offer.model, offer.input_pico_usd, offer.cached_input_pico_usd, offer.output_pico_usd, clock_timestamp(), 'card'
from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
  as offer (model, input_pico_usd, cached_input_pico_usd, output_pico_usd)
left join lateral (
  select input_pico_usd, cached_input_pico_usd, output_pico_usd, origin
  from billing.price_version
  where price_list_id = 1 and model = offer.model and valid_from <= clock_timestamp()
  order by valid_from desc, id desc
  limit 1
) as current on true
where coalesce(current.origin, 'card') = 'card'
  and (current.input_pico_usd, current.cached_input_pico_usd, current.output_pico_usd)
    is distinct from (offer.input_pico_usd, offer.cached_input_pico_usd, offer.output_pico_usd)
order by offer.model
returning *

-- name: stamp
-- Changes whenever a price, an assignment or a list was added, also by a transaction that took its id earlier.
select array_agg(part order by place)
from (
  select 1 as place, array[count(*), max(id)] as part from billing.price_list
  union all select 2, array[count(*), max(id)] from billing.price_version
  union all select 3, array[count(*), max(id)] from billing.price_assignment
  union all select 4, array[count(*), max(id)] from billing.minute_price_version
) as parts

-- name: all_lists
select * from billing.price_list order by id

-- name: all_assignments
select * from billing.price_assignment order by id

-- name: all_versions
-- Everything ever offered: a few rows per model.
select * from billing.price_version order by id

-- name: all_minute_versions
select * from billing.minute_price_version order by id

-- name: clock
select clock_timestamp()

-- name: add_version
insert into billing.price_version
  (price_list_id, model, input_pico_usd, cached_input_pico_usd, output_pico_usd, image_pico_usd,
   audio_second_pico_usd, document_pico_usd, batch_discount_ppm, valid_from, note)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, coalesce($10, clock_timestamp()), $11)
returning *

-- name: add_minute_version
insert into billing.minute_price_version (price_list_id, kind, subject, nano_usd_per_minute, valid_from, note)
values ($1, $2, $3, $4, coalesce($5, clock_timestamp()), $6)
returning *

-- name: add_first_minute
-- On the standard list, unless a person or an earlier start was there before.
insert into billing.minute_price_version (price_list_id, kind, subject, nano_usd_per_minute, valid_from, note)
select 1, $1, $2, $3, clock_timestamp(), $4
where not exists (
  select from billing.minute_price_version where price_list_id = 1 and kind = $1 and subject = $2
)
returning id

-- name: add_list
insert into billing.price_list (name, note) values ($1, $2)
on conflict on constraint price_list_name do nothing
returning *

-- name: add_assignment
insert into billing.price_assignment (organisation_id, price_list_id, valid_from, note)
values ($1, $2, coalesce($3, clock_timestamp()), $4)
returning *
