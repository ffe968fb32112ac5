-- Health of a FlinkHaCluster, by the rules of kstatus (docs/operations.md). Argo CD opens neither `string` nor `math`.
local conditions = {}
if obj.status ~= nil and obj.status.conditions ~= nil then
  for _, condition in ipairs(obj.status.conditions) do
    conditions[condition.type] = condition
  end
end

local function holds(kind)
  return conditions[kind] ~= nil and conditions[kind].status == "True"
end

local function message(kind)
  return conditions[kind] ~= nil and conditions[kind].message or ""
end

if holds("Paused") then
  return { status = "Suspended", message = message("Paused") }
end
if conditions["Ready"] == nil then
  return { status = "Progressing", message = "The operator has not looked at this resource yet" }
end
if obj.status.observedGeneration ~= nil and obj.status.observedGeneration ~= obj.metadata.generation then
  return { status = "Progressing", message = "The operator has not looked at this change yet" }
end
if holds("Reconciling") then
  return { status = "Progressing", message = holds("Degraded") and message("Degraded") or message("Reconciling") }
end
if holds("Stalled") then
  return { status = "Degraded", message = message("Stalled") }
end
if not holds("Ready") then
  if holds("Degraded") then
    return { status = "Degraded", message = message("Degraded") }
  end
  return { status = "Progressing", message = message("Ready") }
end
return { status = "Healthy", message = holds("Degraded") and message("Degraded") or message("Ready") }
