-- What people try in the portal's playground is counted under a key of each project, which nobody can send.

alter table access.api_key
  add column playground boolean not null default false,
  add constraint api_key_playground check (not playground or endpoint_id is null);
create unique index api_key_of_playground on access.api_key (project_id) where playground and revoked_at is null;
comment on column access.api_key.playground is 'Stands for people who try models in the portal: its digest is of nothing, so it opens nothing by itself';
