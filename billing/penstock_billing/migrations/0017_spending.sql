-- Gateways ask every second what is spent in this month: that must not read the months before.

create index spend_month_by_month on billing.spend_month (organisation_id, month);
