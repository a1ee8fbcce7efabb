-- Who made a price, and that none is made for the past.

alter table billing.price_version
  add column origin text not null default 'operator',
  add constraint price_version_origin check (origin in ('card', 'operator'));
comment on column billing.price_version.origin is
  'card: taken from a model''s card, which may replace it; operator: made by a person, which no card replaces';

-- What was there came from cards: nobody else could add any. The table is append-only, for its owner too.
alter table billing.price_version disable trigger append_only;
update billing.price_version set origin = 'card';
alter table billing.price_version enable trigger append_only;

-- Of two that begin at the same moment the later one counts, as with prices: so what is scheduled can be replaced.
alter table billing.price_assignment rename column assigned_at to added_at;
alter table billing.price_assignment
  drop constraint price_assignment_identity,
  add column id bigint generated always as identity constraint price_assignment_identity primary key;
create index price_assignment_by_organisation on billing.price_assignment (organisation_id, valid_from desc, id desc);

create function billing.refuse_the_past() returns trigger language plpgsql as $$
begin
  -- The database's clock decides, and says when it was added: neither can be claimed.
  new.added_at := clock_timestamp();
  if new.valid_from < new.added_at - interval '5 seconds' or not isfinite(new.valid_from) then
    raise exception 'billing.% begins now or later, not at %: the past stays as it was', tg_table_name, new.valid_from
      using errcode = 'check_violation', constraint = 'never_in_the_past';
  end if;
  return new;
end $$;
comment on function billing.refuse_the_past is
  'Trigger: valid_from is now or later, by the database''s clock; 5 seconds are allowed between its being taken and written.';

do $$
declare dated text;
begin
  foreach dated in array array['price_version', 'price_assignment', 'minute_price_version'] loop
    execute format('create trigger never_in_the_past before insert on billing.%I
                    for each row execute function billing.refuse_the_past()', dated);
  end loop;
end $$;
