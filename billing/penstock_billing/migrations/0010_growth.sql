-- What hours and days are made from is found by time alone, whoever it belongs to; rows lie nearly in its order.

create index usage_minute_by_time on billing.usage_minute using brin (minute)
  with (pages_per_range = 32, autosummarize = on);
create index usage_hour_by_time on billing.usage_hour using brin (hour)
  with (pages_per_range = 32, autosummarize = on);
