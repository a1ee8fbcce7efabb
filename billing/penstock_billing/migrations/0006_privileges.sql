-- What running processes may do: they are penstock_app, which can add facts and not change them.
-- (The role itself, and what it may do with tables to come, is made before any migration: penstock_base.migrations.)

do $$
declare room text;
begin
  foreach room in array array['access', 'engines', 'billing'] loop
    if to_regnamespace(room) is not null then
      execute format('grant usage on schema %I to penstock_app', room);
      execute format('grant select, insert, update, delete on all tables in schema %I to penstock_app', room);
      execute format('grant usage, select on all sequences in schema %I to penstock_app', room);
    end if;
  end loop;
end $$;

revoke update, delete on
  billing.price_list, billing.price_version, billing.price_assignment, billing.minute_price_version,
  billing.ledger_transaction, billing.entry, billing.usage_event, billing.usage_event_default,
  billing.minute_charge, billing.rejected_frame, billing.account_kind
from penstock_app;

create or replace function billing.ensure_usage_partition(day date) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  part  text := 'usage_event_' || to_char(day, 'YYYYMMDD');
  since timestamptz := day::timestamp at time zone 'UTC';
  until timestamptz := (day + 1)::timestamp at time zone 'UTC';
  strayed boolean;
begin
  if to_regclass('billing.' || part) is not null then
    return false;
  end if;
  strayed := exists (select from billing.usage_event_default where ended_at >= since and ended_at < until);
  if strayed then
    -- Rows cannot be deleted here, so the default partition is replaced and its rows are sorted anew.
    alter table billing.usage_event detach partition billing.usage_event_default;
    alter table billing.usage_event_default rename to usage_event_strayed;
    create table billing.usage_event_default (like billing.usage_event including all);
    revoke update, delete, truncate on billing.usage_event_default from penstock_app;
    alter table billing.usage_event attach partition billing.usage_event_default default;
  end if;
  -- Made apart and then attached: that locks out neither readers nor writers of the other partitions.
  execute format('create table billing.%I (like billing.usage_event including all)', part);
  execute format('revoke update, delete, truncate on billing.%I from penstock_app', part);
  execute format('alter table billing.usage_event attach partition billing.%I for values from (%L) to (%L)',
                 part, since, until);
  if strayed then
    insert into billing.usage_event select * from billing.usage_event_strayed;
    drop table billing.usage_event_strayed;
  end if;
  return true;
end $$;
