-- The triggers that write the audit log. This room comes last: it alone knows the tables of all others.
-- A table that people's doings change and that a later migration makes is watched by a further file here;
-- a test knows every table, and which are none of the log's business.

create schema audit;
comment on schema audit is 'Triggers that write access.audit_entry in the transaction of each change.';

create function audit.secret(field text) returns boolean language sql immutable strict parallel safe as $$
  select field ~ '(^|_)(digest|hash|secret|secrets|token|tokens|code|codes|password)$'
$$;
comment on function audit.secret(text) is 'Whether a column of the room "access" holds what must not be read again.';

-- Arguments of the triggers: the thing in words, the columns of its id, those of its name (each joined by
-- blanks), and columns that tell nothing by themselves, such as when a row was touched.
create function audit.note() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  old_row  jsonb := case when tg_op = 'INSERT' then '{}' else to_jsonb(old) end;
  new_row  jsonb := case when tg_op = 'DELETE' then '{}' else to_jsonb(new) end;
  row_now  jsonb := case when tg_op = 'DELETE' then old_row else new_row end;
  noise    text[] := string_to_array(tg_argv[3], ' ');
  past     jsonb := '{}';
  present  jsonb := '{}';
  did      text := case tg_op when 'INSERT' then 'created' when 'DELETE' then 'removed' else 'changed' end;
  hides    boolean := tg_table_schema = 'access';
  whose    bigint;
  thing    text;
  called   text;
  field    text;
begin
  for field in select key from jsonb_each(old_row || new_row) loop
    if field = any (noise) or old_row -> field is not distinct from new_row -> field then
      continue;
    end if;
    if hides and audit.secret(field) then
      -- That it changed is told, by two words that differ.
      past := past || case when jsonb_typeof(old_row -> field) is distinct from 'null' and old_row ? field
        then jsonb_build_object(field, 'hidden') else '{}' end;
      present := present || case when jsonb_typeof(new_row -> field) is distinct from 'null' and new_row ? field
        then jsonb_build_object(field, 'hidden, another') else '{}' end;
      continue;
    end if;
    if old_row ? field and (tg_op = 'UPDATE' or old_row -> field <> 'null') then
      past := past || jsonb_build_object(field, old_row -> field);
    end if;
    if new_row ? field and (tg_op = 'UPDATE' or new_row -> field <> 'null') then
      present := present || jsonb_build_object(field, new_row -> field);
    end if;
  end loop;
  if past = '{}' and present = '{}' then
    return null;
  end if;
  if tg_op = 'UPDATE' then
    did := case
      when present ->> 'revoked_at' is not null then 'revoked'
      when coalesce(present ->> 'deleted_at', present ->> 'removed_at', present ->> 'ended_at') is not null then 'removed'
      else 'changed' end;
  end if;

  select string_agg(coalesce(row_now ->> part, ''), ':' order by place) into thing
  from regexp_split_to_table(tg_argv[1], ' ') with ordinality as parts (part, place);
  select string_agg(coalesce(row_now ->> part, ''), ' ' order by place) into called
  from regexp_split_to_table(tg_argv[2], ' ') with ordinality as parts (part, place) where part <> '';

  if tg_table_schema = 'access' and tg_table_name = 'organisation' then
    whose := (row_now ->> 'id')::bigint;
  elsif row_now ? 'organisation_id' then
    whose := (row_now ->> 'organisation_id')::bigint;
  elsif tg_table_schema = 'adapters' and tg_table_name = 'version' then
    select adapter.organisation_id, adapter.base_model || ':' || adapter.name into whose, called
    from adapters.adapter where adapter.id = (row_now ->> 'adapter_id')::bigint;
  end if;
  if row_now ? 'person_id' then
    select person.email into called from access.person where person.id = (row_now ->> 'person_id')::bigint;
  end if;

  if tg_table_schema = 'access' and not row_now ? 'organisation_id' and (tg_table_name = 'person' or row_now ? 'person_id') then
    -- A person belongs to as many organisations as they are a member of: each is told.
    perform audit.write(membership.organisation_id, did, tg_argv[0], thing, coalesce(called, ''), past, present)
    from access.membership
    where membership.person_id = (row_now ->> case tg_table_name when 'person' then 'id' else 'person_id' end)::bigint;
    if found then
      return null;
    end if;
  end if;
  perform audit.write(whose, did, tg_argv[0], thing, coalesce(called, ''), past, present);
  return null;
end $$;
comment on function audit.note() is 'Trigger: writes what a change made another, and who made it.';

-- Money that somebody moved, when the transaction is whole: its entries are added after it.
create function audit.note_money() returns trigger
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
begin
  perform audit.write(
    side.organisation_id, 'created', 'ledger transaction', new.id::text, new.kind, '{}',
    jsonb_strip_nulls(jsonb_build_object(
      'kind', new.kind, 'ref', new.ref, 'note', new.note, 'corrects', new.corrects, 'entries', side.entries)))
  from (
    select account.organisation_id, jsonb_agg(
      jsonb_build_object('account', account.kind, 'project_id', account.project_id, 'amount_nano_usd', entry.amount_nano_usd)
      order by account.project_id, account.kind) as entries
    from billing.entry join billing.account on account.id = entry.account_id
    where entry.transaction_id = new.id
    group by account.organisation_id
  ) as side;
  return null;
end $$;
comment on function audit.note_money() is 'Trigger: writes a booking that is no usage, for each organisation that it concerns.';

create function audit.write(
  whose bigint, did text, object text, object_id text, object_name text, past jsonb, present jsonb
) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
  told  jsonb := coalesce(nullif(current_setting('penstock.actor', true), ''), '{}')::jsonb;
  kind  text := told ->> 'kind';
  who   text := coalesce(told ->> 'id', '');
  named text := coalesce(told ->> 'name', '');
begin
  if kind is null then
    -- Nobody said who: one of our processes by itself, or SQL by hand.
    named := current_setting('application_name');
    if starts_with(named, 'penstock ') then
      kind := 'system';
      named := substr(named, length('penstock ') + 1);
    else
      kind := 'database';
      named := session_user;
    end if;
  elsif kind = 'key' then
    select api_key.name into named from access.api_key where api_key.id = who;
  end if;
  insert into access.audit_entry (
    organisation_id, actor_kind, actor_id, actor_name, request_id, address,
    action, object, object_id, object_name, before, after)
  values (
    whose, kind, who, coalesce(named, ''), coalesce(told ->> 'request_id', ''), coalesce(told ->> 'address', ''),
    did, object, object_id, object_name, past, present);
end $$;
comment on function audit.write is 'Adds an entry, in the name of whom the setting penstock.actor tells.';
revoke all on function audit.write from public;
revoke usage on schema audit from penstock_app;
-- Running processes read the log; only the triggers, which have their owner's rights, add to it. (Said here, because
-- a migration of billing gives them every table of "access" that is there before it.)
revoke insert, update, delete, truncate on access.audit_entry from penstock_app;

create procedure audit.watch(watched regclass, object text, ids text, names text, noise text) language plpgsql as $$
begin
  execute format(
    'create trigger audited after insert or update or delete on %s for each row execute function audit.note(%L, %L, %L, %L)',
    watched, object, ids, names, noise);
end $$;
comment on procedure audit.watch is 'Has every change of a table written to the audit log.';

call audit.watch('access.organisation', 'organisation', 'id', 'name', 'created_at');
call audit.watch('access.project', 'project', 'id', 'name', 'created_at');
call audit.watch('access.api_key', 'API key', 'id', 'name', 'created_at changed_at');
call audit.watch('access.plan', 'plan', 'name', 'name', '');
call audit.watch('access.person', 'person', 'id', 'email', 'created_at');
call audit.watch('access.membership', 'member', 'person_id', '', 'created_at');
call audit.watch('endpoints.serverless', 'endpoint', 'id', 'name', 'created_at changed_at suspended_at problem ended_at');
call audit.watch('adapters.adapter', 'adapter', 'id', 'name', 'created_at changed_at');
call audit.watch('adapters.version', 'adapter version', 'adapter_id number', '', 'created_at removed_at');
call audit.watch('billing.wallet', 'wallet', 'organisation_id project_id', '', 'changed_at');
call audit.watch('billing.budget', 'budget', 'id', '', 'created_at changed_at');
call audit.watch('billing.promotion', 'promotional credit', 'id', 'note', 'created_at left_nano_usd expired_nano_usd expired_at');
call audit.watch('billing.price_list', 'price list', 'id', 'name', 'created_at');
call audit.watch('billing.price_version', 'price', 'id', 'model', 'added_at');
call audit.watch('billing.minute_price_version', 'price of a minute', 'id', 'kind subject', 'added_at');
call audit.watch('billing.price_assignment', 'price list of an organisation', 'organisation_id', '', 'added_at');
call audit.watch('engines.pool', 'pool', 'model', 'model', 'changed_at');
call audit.watch('engines.pool_version', 'pool version', 'model version', 'model version', 'created_at');

create constraint trigger audited after insert on billing.ledger_transaction
  deferrable initially deferred for each row
  when (new.kind not in ('usage', 'minutes', 'lease_grant', 'lease_release', 'promotion'))
  execute function audit.note_money();
