-- How people get in: invitations, and second factors set up and removed, of which each of a person's organisations is told.

call audit.watch('access.invitation', 'invitation', 'id', 'email', 'created_at');
call audit.watch('access.second_factor', 'second factor', 'person_id', '', 'begun_at last_step');
