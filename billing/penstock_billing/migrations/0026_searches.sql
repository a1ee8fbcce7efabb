-- Single requests are searched by how long they took and how they ended: both are rare in a window, so that reading
-- it from its end would read nearly all of it. What took less than a second, or was done, is common enough.

create index usage_event_slow on billing.usage_event (organisation_id, duration_us) where duration_us >= 1000000;
create index usage_event_not_done on billing.usage_event (organisation_id, ended_at, event_id) where outcome <> 'done';
