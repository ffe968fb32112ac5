-- Moves the leader to another JobManager. The operator removes the annotation.
if obj.metadata.annotations == nil then
  obj.metadata.annotations = {}
end
obj.metadata.annotations["flinkha.dev/switchover"] = "any"
return obj
