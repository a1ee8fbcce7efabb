-- Old events in files. Their ids stay, so that a record that comes late is still told from one that comes again.
--
-- What takes events away from Postgres is done by functions of the owner's: running processes may neither delete an
-- event nor say of themselves that a file has it.

alter table billing.archive
  add column part             integer not null default 1 constraint archive_part check (part > 0),
  add column size_bytes       bigint  not null default 0,
  add column input_tokens     bigint  not null default 0,
  add column cached_tokens    bigint  not null default 0,
  add column output_tokens    bigint  not null default 0,
  add column reasoning_tokens bigint  not null default 0,
  add column images           bigint  not null default 0,
  add column audio_ms         bigint  not null default 0,
  add column documents        bigint  not null default 0,
  add column kept_until       timestamptz,
  drop constraint archive_pkey,
  add constraint archive_identity primary key (day, part);
create index archive_in_files on billing.archive (day) where detached_at is not null and restored_at is null;
comment on column billing.archive.part is 'What came late for a day that was filed already makes another part; so does filing it again';
comment on column billing.archive.file is 'The name in the archive folder';
comment on column billing.archive.kept_until is 'Of a restored day: not filed again before';
revoke insert, update, delete on billing.archive from penstock_app;

create table billing.archived_events (
  day       date        not null,
  part      integer     not null,
  minute    timestamptz not null,
  event_ids uuid[]      not null,
  constraint archived_events_identity primary key (day, part, minute),
  constraint archived_events_of_a_file foreign key (day, part) references billing.archive
);
comment on table billing.archived_events is 'The ids of events that are in a file, by the minute in which they ended: 16 bytes each.';
revoke insert, update, delete on billing.archived_events from penstock_app;

create function billing.usage_partition(day date) returns text
language sql immutable as $$ select 'usage_event_' || to_char(day, 'YYYYMMDD') $$;
comment on function billing.usage_partition(date) is 'The name of a day''s partition.';

create function billing.refuse_young(of_day date) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
  if of_day > (now() at time zone 'UTC')::date - 3 then
    raise exception 'the events of % stay in the database for three days', of_day using errcode = 'restrict_violation';
  end if;
end $$;
comment on function billing.refuse_young is 'Days to which gateways still add are not taken away.';

create function billing.file_usage_day(
  of_day date, of_part integer, in_file text, file_bytes bigint, file_sha256 bytea, sums bigint[]
) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform billing.refuse_young(of_day);
  -- A try that was broken off left its row, and nothing else.
  delete from billing.archived_events where day = of_day and part = of_part;
  delete from billing.archive where day = of_day and part = of_part and detached_at is null;
  insert into billing.archive (
    day, part, file, size_bytes, sha256, events, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images,
    audio_ms, documents, cost_nano_usd
  ) values (
    of_day, of_part, in_file, file_bytes, file_sha256, sums[1], sums[2], sums[3], sums[4], sums[5], sums[6], sums[7],
    sums[8], sums[9]
  );
  execute format(
    'insert into billing.archived_events (day, part, minute, event_ids)
     select $1, $2, date_trunc(''minute'', ended_at), array_agg(event_id order by event_id) from billing.%I group by 3',
    billing.usage_partition(of_day)) using of_day, of_part;
end $$;
comment on function billing.file_usage_day is
  'Notes that a file has a day''s events, and their ids. Nothing is taken away yet, and nothing reads it before.';

create function billing.usage_sums(of_table regclass) returns bigint[]
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
declare sums bigint[];
begin
  execute format(
    'select array[count(*), coalesce(sum(input_tokens), 0), coalesce(sum(cached_tokens), 0),
       coalesce(sum(output_tokens), 0), coalesce(sum(reasoning_tokens), 0), coalesce(sum(images), 0),
       coalesce(sum(audio_ms), 0), coalesce(sum(documents), 0), coalesce(sum(cost_nano_usd), 0)::bigint]
     from %s', of_table) into sums;
  return sums;
end $$;
comment on function billing.usage_sums is 'Number of events, the sums of what they used, and their cost.';

create function billing.archive_sums(of_day date, of_part integer) returns bigint[]
language sql stable set search_path = pg_catalog, pg_temp as $$
  select array[events, input_tokens, cached_tokens, output_tokens, reasoning_tokens, images, audio_ms, documents,
               cost_nano_usd]
  from billing.archive where day = of_day and part = of_part
$$;
comment on function billing.archive_sums is 'The same of a file, as it was read back.';

create function billing.detach_usage_day(of_day date, of_part integer) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  held text := billing.usage_partition(of_day);
begin
  perform billing.refuse_young(of_day);
  -- Nobody ships meanwhile: whoever ships afterwards sees that the day is filed, and asks for its ids.
  perform pg_advisory_xact_lock(7306001203);
  -- Events are only ever added: the same number is the same events.
  if billing.usage_sums(format('billing.%I', held)::regclass)
     is distinct from billing.archive_sums(of_day, of_part) then
    return false;
  end if;
  update billing.archive set detached_at = now() where day = of_day and part = of_part and detached_at is null;
  if not found then
    return false;
  end if;
  -- Whoever wanted to keep a day that was brought back does no more.
  update billing.archive set kept_until = null where day = of_day and kept_until is not null;
  execute format('alter table billing.usage_event detach partition billing.%I', held);
  execute format('drop table billing.%I', held);
  return true;
end $$;
comment on function billing.detach_usage_day is
  'Takes a day''s events away, if its file has them all; false, and nothing done, when some came since it was written.';

create function billing.drop_empty_usage_day(of_day date) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  held text := billing.usage_partition(of_day);
begin
  perform billing.refuse_young(of_day);
  perform pg_advisory_xact_lock(7306001203);
  if (billing.usage_sums(format('billing.%I', held)::regclass))[1] > 0 then
    return false;
  end if;
  execute format('alter table billing.usage_event detach partition billing.%I', held);
  execute format('drop table billing.%I', held);
  return true;
end $$;
comment on function billing.drop_empty_usage_day is 'Takes away the partition of a day on which nothing was used.';

create function billing.begin_restoring(of_day date, of_part integer) returns text
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  held text := billing.usage_partition(of_day) || '_restored_' || of_part;
begin
  perform from billing.archive
  where day = of_day and part = of_part and detached_at is not null and restored_at is null for update;
  if not found then
    return null;
  end if;
  execute format('drop table if exists billing.%I', held);
  execute format('create table billing.%I (like billing.usage_event including all)', held);
  execute format('revoke update, delete, truncate on billing.%I from penstock_app', held);
  return held;
end $$;
comment on function billing.begin_restoring is
  'Makes the table that a file''s events are copied to, and names it; null when the part is not in a file only.';

create function billing.finish_restoring(of_day date, of_part integer, keep_until timestamptz) returns boolean
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  filled text := billing.usage_partition(of_day) || '_restored_' || of_part;
  held   text := billing.usage_partition(of_day);
  since  timestamptz := of_day::timestamp at time zone 'UTC';
  until  timestamptz := (of_day + 1)::timestamp at time zone 'UTC';
begin
  perform pg_advisory_xact_lock(7306001203);
  perform from billing.archive
  where day = of_day and part = of_part and detached_at is not null and restored_at is null for update;
  if not found or to_regclass(format('billing.%I', filled)) is null
     or billing.usage_sums(format('billing.%I', filled)::regclass) is distinct from billing.archive_sums(of_day, of_part)
  then
    return false;
  end if;
  if to_regclass(format('billing.%I', held)) is null
     and not exists (select from billing.usage_event_default where ended_at >= since and ended_at < until) then
    execute format('alter table billing.%I rename to %I', filled, held);
    execute format('alter table billing.usage_event attach partition billing.%I for values from (%L) to (%L)',
                   held, since, until);
  else
    -- Others of that day came late, or another part is back already: they share a partition.
    perform billing.ensure_usage_partition(of_day);
    execute format('insert into billing.usage_event select * from billing.%I', filled);
    execute format('drop table billing.%I', filled);
  end if;
  update billing.archive set restored_at = now(), kept_until = keep_until where day = of_day and part = of_part;
  delete from billing.archived_events where day = of_day and part = of_part;
  return true;
end $$;
comment on function billing.finish_restoring is
  'Puts restored events back where they were, if they are all that the file should have; false, and nothing done, if not.';
