-- Removes the pods of an application and keeps its state.
obj.spec.job.state = "suspended"
return obj
