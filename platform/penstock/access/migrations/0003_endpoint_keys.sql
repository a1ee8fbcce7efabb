-- Keys that open one endpoint and nothing else: a primary and a secondary one, so that either can be replaced.

alter table access.api_key
  add column endpoint_id bigint,
  add column slot        text constraint api_key_slot check (slot in ('primary', 'secondary')),
  add constraint api_key_endpoint check ((endpoint_id is null) = (slot is null));
create unique index api_key_of_endpoint on access.api_key (endpoint_id, slot) where revoked_at is null;
comment on column access.api_key.endpoint_id is 'The one endpoint that it opens; null: everything of its project';
