-- name: all
select p.model, p.version, p.settings::text, p.origin, v.content::text
from engines.pool p join engines.pool_version v using (model, version)
order by p.model

-- name: one
select p.model, p.version, p.settings::text, p.origin, v.content::text
from engines.pool p join engines.pool_version v using (model, version)
where p.model = $1

-- name: lock
select pg_advisory_xact_lock(hashtextextended('engines.pool ' || $1, 0))

-- name: add_version
insert into engines.pool_version (model, version, content, note)
select $1, coalesce(max(version), 0) + 1, $2, $3 from engines.pool_version where model = $1
returning version

-- name: newest_version
select version, content::text from engines.pool_version where model = $1 order by version desc limit 1

-- name: versions
select version, content::text, note, created_at from engines.pool_version where model = $1 order by version desc

-- name: put
insert into engines.pool (model, version, settings, origin) values ($1, $2, $3, $4)
on conflict (model) do update set
  version = excluded.version, settings = excluded.settings, origin = excluded.origin, changed_at = now()

-- name: remove
delete from engines.pool where model = $1 returning model

-- name: remove_unnamed
delete from engines.pool where origin = 'settings' and not model = any ($1::text[]) returning model

-- name: note_scaling
insert into engines.scaling (model, before, after, reason, sample) values ($1, $2, $3, $4, $5)

-- name: scalings
select at, before, after, reason, sample::text from engines.scaling
where model = $1 order by id desc limit $2

-- name: forget_scalings
delete from engines.scaling where at < $1

-- name: tell_load
insert into engines.load (gateway, model, running, waiting_requests, waiting_tokens, first_token_ms, asked_at)
select $1, m, r, w, t, f, a
from unnest($2::text[], $3::int[], $4::int[], $5::float8[], $6::int[], $7::timestamptz[]) as u (m, r, w, t, f, a)
on conflict (gateway, model) do update set
  running = excluded.running, waiting_requests = excluded.waiting_requests,
  waiting_tokens = excluded.waiting_tokens, first_token_ms = excluded.first_token_ms,
  asked_at = greatest(load.asked_at, excluded.asked_at), told_at = now()

-- name: loads
select model,
       coalesce(sum(running) filter (where fresh), 0)::int as running,
       coalesce(sum(waiting_requests) filter (where fresh), 0)::int as waiting_requests,
       coalesce(sum(waiting_tokens) filter (where fresh), 0)::float8 as waiting_tokens,
       coalesce(max(first_token_ms) filter (where fresh), 0)::int as first_token_ms,
       extract(epoch from now() - max(asked_at))::float8 as idle_s
from (select *, told_at > now() - interval '5 seconds' as fresh from engines.load) told
group by model

-- name: forget_loads
delete from engines.load where told_at < now() - interval '1 day' and asked_at < now() - interval '1 day'

-- name: put_hardware
with others as (delete from engines.hardware where controller <> $1)
insert into engines.hardware (controller, content) values ($1, $2)
on conflict (controller) do update set content = excluded.content, told_at = now()

-- name: hardware
select content::text from engines.hardware order by told_at desc limit 1

-- name: engines_of
select id, model, state, version, reason, extract(epoch from now() - changed_at)::float8 as since_s
from engines.replica order by model, started_at, id

-- name: note_start
insert into engines.start (model, version, process_s, listening_s, answer_s) values ($1, $2, $3, $4, $5)

-- name: starts
select at, version, process_s, listening_s, answer_s from engines.start where model = $1 order by id desc limit $2

-- name: usual_starts
select p.model, (
  select percentile_cont(0.5) within group (order by answer_s)
  from (select answer_s from engines.start s where s.model = p.model order by id desc limit 20) lately
) as usually_s
from engines.pool p

-- name: forget_starts
delete from engines.start where at < $1
