-- What is spent of a budget, each kind of question by its own index.

create index spend_month_by_key on billing.spend_month (organisation_id, key_id, month);

create function billing.spent_nano_usd(organisation bigint, project bigint, key text, in_month date)
returns bigint language plpgsql stable parallel safe set search_path = pg_catalog, pg_temp as $$
declare
  spent numeric;
begin
  -- One plain query for each case: one for all of them could use no index.
  if key is not null and in_month is not null then
    select sum(cost_nano_usd) into spent from billing.spend_month
    where organisation_id = organisation and key_id = key and month = in_month;
  elsif key is not null then
    select sum(cost_nano_usd) into spent from billing.spend_month
    where organisation_id = organisation and key_id = key;
  elsif in_month is not null then
    select sum(cost_nano_usd) into spent from billing.spend_month
    where organisation_id = organisation and month = in_month and (project is null or project_id = project);
  elsif project is not null then
    select sum(cost_nano_usd) into spent from billing.spend_month
    where organisation_id = organisation and project_id = project;
  else
    select sum(cost_nano_usd) into spent from billing.spend_month where organisation_id = organisation;
  end if;
  return coalesce(spent, 0);
end $$;
comment on function billing.spent_nano_usd is
  'What requests of an organisation, or of one of its projects or keys, cost in a UTC month; without a month, ever.';
