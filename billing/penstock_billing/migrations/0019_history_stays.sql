-- What was given, allowed and told stays on record: running processes end such rows, and delete none.

revoke delete, truncate on billing.promotion, billing.budget, billing.budget_alert, billing.wallet from penstock_app;
revoke update on billing.budget_alert from penstock_app;
