-- Since when an endpoint takes nothing, why it cannot be served, and when all of it was over.

alter table endpoints.serverless
  add column suspended_at timestamptz,
  add column problem      text,
  add column ended_at     timestamptz;
update endpoints.serverless set suspended_at = changed_at where suspended is not null;
update endpoints.serverless set ended_at = deleted_at where deleted_at is not null;
alter table endpoints.serverless
  add constraint serverless_suspended check ((suspended is null) = (suspended_at is null));
create index serverless_leaving on endpoints.serverless (id) where deleted_at is not null and ended_at is null;
comment on column endpoints.serverless.suspended_at is 'Its minutes end here, however late a controller comes to it';
comment on column endpoints.serverless.problem is 'Why its model has no pool; null: nothing is known to be wrong';
comment on column endpoints.serverless.ended_at is 'When its minutes had been ended after deleted_at: until then it is shown as deleting';
