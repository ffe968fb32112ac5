-- Runs a suspended application again.
obj.spec.job.state = "running"
return obj
