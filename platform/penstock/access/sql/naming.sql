-- name: projects
select id, name from access.project where organisation_id = $1 order by name, id

-- name: some_keys
select id, name from access.api_key
where organisation_id = $1 and endpoint_id is null
order by revoked_at is not null, created_at desc, id
limit $2

-- name: keys
select id, name from access.api_key where organisation_id = $1 and id = any($2::text[])
