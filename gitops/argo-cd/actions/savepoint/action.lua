-- Takes a savepoint of the running job.
obj.spec.job.savepointTriggerNonce = (obj.spec.job.savepointTriggerNonce or 0) + 1
return obj
