-- name: lock_list
-- One writer of prices at a time; any constant will do. Held until the transaction ends.
select pg_advisory_xact_lock(7306001201)

-- name: add_changed
-- A new version for each offered model whose price in force differs, or that has none.
insert into billing.price_version (model, input_pico_usd, cached_input_pico_usd, output_pico_usd, valid_from)
select offer.model, offer.input_pico_usd, offer.cached_input_pico_usd, offer.output_pico_usd, clock_timestamp()
from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[])
  as offer (model, input_pico_usd, cached_input_pico_usd, output_pico_usd)
left join lateral (
  select input_pico_usd, cached_input_pico_usd, output_pico_usd
  from billing.price_version
  where price_list_id = 1 and model = offer.model and valid_from <= clock_timestamp()
  order by valid_from desc, id desc
  limit 1
) as current on true
where (current.input_pico_usd, current.cached_input_pico_usd, current.output_pico_usd)
  is distinct from (offer.input_pico_usd, offer.cached_input_pico_usd, offer.output_pico_usd)
order by offer.model
returning *

-- name: all_versions
-- Everything ever offered: a few rows per model.
select * from billing.price_version order by id
