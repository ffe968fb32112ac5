-- The actions of a FlinkHaCluster, and which of them are of use at the moment.
local status = obj.status or {}
local job = obj.spec.job
local provider = obj.spec.highAvailability.provider or "Kubernetes"
local suspended = job ~= nil and job.state == "suspended"
local phase = status.application ~= nil and status.application.phase or ""
local ended = phase == "Ending" or phase == "Ended"
local standbys = (obj.spec.jobManager == nil or obj.spec.jobManager.replicas ~= 1)

local actions = {}
actions["restart"] = { disabled = suspended or ended }
actions["switchover"] = { disabled = suspended or ended or status.leader == nil or provider ~= "Kubernetes" or not standbys }
if job ~= nil then
  actions["suspend"] = { disabled = suspended or ended }
  actions["resume"] = { disabled = not suspended or ended }
  actions["savepoint"] = { disabled = suspended or phase ~= "Running" }
end
return actions
