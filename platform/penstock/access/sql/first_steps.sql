-- name: beginnings
-- What there is of an organisation: live keys, those that stand for its playground, and whether there are
-- other people, or were invited.
select
  exists (
    select from access.api_key
    where organisation_id = $1 and endpoint_id is null and not playground and revoked_at is null
  ) as keys,
  array(select id from access.api_key where organisation_id = $1 and playground) as playground_keys,
  (select count(*) from access.membership where organisation_id = $1) > 1
    or exists (select from access.invitation where organisation_id = $1) as company
