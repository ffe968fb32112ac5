# Puts the operator's options before all others of the JVM: of two that contradict each other the later one counts.
export JAVA_TOOL_OPTIONS="$FLINKHA_JVM_OPTIONS${JAVA_TOOL_OPTIONS:+ $JAVA_TOOL_OPTIONS}"

