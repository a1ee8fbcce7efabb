-- name: labels
-- Names of an organisation's keys, whatever they open and whether they still do, and of its projects.
(select 'key' as kind, id, name from access.api_key where organisation_id = $1
 order by revoked_at is not null, name, id limit $2)
union all
(select 'project', id::text, name from access.project where organisation_id = $1 order by name)

-- name: keys
select id, name from access.api_key where organisation_id = $1 and id = any($2::text[])
