# Puts the operator's options before all others of the JVM: of two that contradict each other the later one counts.
export JAVA_TOOL_OPTIONS="$FLINKHA_JVM_OPTIONS${JAVA_TOOL_OPTIONS:+ $JAVA_TOOL_OPTIONS}"
# Maps classes from an archive in the image. No JVM survives half an archive, so its length is compared. In a variable that only Flink's own
# scripts read: the JVM in which they compute sizes has other jars, and would do without any archive.
classes=${FLINK_HOME:-/opt/flink}/class-archives/jobmanager
if [ -s "$classes.jsa" ] && [ -s "$classes.length" ] && [ "$(wc -c < "$classes.jsa")" = "$(cat "$classes.length")" ]; then
  export JVM_ARGS="-Xshare:auto -XX:SharedArchiveFile=$classes.jsa${JVM_ARGS:+ $JVM_ARGS}"
fi

