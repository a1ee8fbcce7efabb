-- name: all
-- Every organisation as an operator sees it.
select organisation.id, organisation.name, organisation.plan, organisation.created_at,
  (select count(*) from access.membership where organisation_id = organisation.id) as members,
  (select count(*) from access.project where organisation_id = organisation.id) as projects,
  (select count(*) from access.api_key as key
   where key.organisation_id = organisation.id and key.revoked_at is null and key.endpoint_id is null) as keys
from access.organisation
order by organisation.name

-- name: create
insert into access.organisation (name) values ($1)
on conflict on constraint organisation_name_unique do nothing returning id
