-- name: page
-- Entries of one organisation, or of the installation and all of them, the newest first.
select entry.id, entry.at, entry.organisation_id, actor_kind, actor_id, actor_name, request_id, address,
       action, object, object_id, object_name, before::text as before, after::text as after
from access.audit_entry as entry
where (entry.organisation_id = $1 or $1::bigint is null)
  and entry.at >= $2 and entry.at < $3 and (entry.at, entry.id) < ($4, $5)
  and ($6::text is null or actor_name ilike $6 or actor_id = $7)
  and ($8::text is null or object = $8)
  and ($9::text is null or action = $9)
  and ($10::text is null or object_name ilike $10 or object_id = $11)
order by entry.at desc, entry.id desc
limit $12

-- name: organisations
select id, name from access.organisation where id = any($1::bigint[])

-- name: projects
select id, name from access.project where id = any($1::bigint[])

-- name: keys
select id, name from access.api_key where id = any($1::text[])

-- name: price_lists
select id, name from billing.price_list where id = any($1::bigint[])
