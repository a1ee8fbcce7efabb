-- What a key may do under /api/v1, beside calling models, which every key may.

alter table access.api_key
  add column role text not null default 'developer'
    constraint api_key_role check (role in ('owner', 'developer', 'viewer'));
comment on column access.api_key.role is 'As a member''s (penstock.access.roles): owner, developer or viewer';
