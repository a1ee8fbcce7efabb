-- name: of_key
select limits::text from access.api_key
where organisation_id = $1 and id = $2 and revoked_at is null and endpoint_id is null

-- name: of_project
select limits::text from access.project where id = $1

-- name: limited_keys
select id, name, limits::text as limits from access.api_key
where organisation_id = $1 and revoked_at is null and endpoint_id is null and limits <> '{}'
order by created_at desc, id

-- name: limited_projects
select name as id, name, limits::text as limits from access.project
where organisation_id = $1 and limits <> '{}' order by name

-- name: limit_key
update access.api_key set limits = $3, changed_at = now()
where organisation_id = $1 and id = $2 and revoked_at is null and endpoint_id is null
returning id

-- name: limit_project
update access.project set limits = $2 where id = $1

-- name: touch_project
-- Gateways read keys that changed: what belongs to a key changes with it.
update access.api_key set changed_at = now() where project_id = $1 and revoked_at is null
