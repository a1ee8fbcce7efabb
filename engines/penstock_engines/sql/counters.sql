-- name: add
insert into engines.counter (
  boot, sampled_at, replica, model, receipts, input_tokens, cached_tokens, output_tokens
)
values ($1, $2, $3, $4, $5, $6, $7, $8)
on conflict (boot, sampled_at) do nothing

-- name: latest
-- The last sample of each start of an engine.
select distinct on (boot) boot, sampled_at, receipts, input_tokens, cached_tokens, output_tokens
from engines.counter
order by boot, sampled_at desc

-- name: prune
-- The last one of each start stays a while longer than the others: it tells of the whole of it.
delete from engines.counter as old
where sampled_at < $1
   or (sampled_at < $2
       and exists (select from engines.counter as newer
                   where newer.boot = old.boot and newer.sampled_at > old.sampled_at))
