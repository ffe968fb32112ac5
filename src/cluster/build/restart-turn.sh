# Lets the recovery go first: a container that starts again in its pod would take processor time from another JobManager, which was just elected
# and brings the jobs back. The gateway says how long. Nothing is waited for at the first start, without the gateway's answer, or without bash.
if [ -s "$FLINK_CONF_DIR/config.yaml" ]; then
  bash -c '
    while [ $SECONDS -lt 8 ]; do
      exec 3<>/dev/tcp/127.0.0.1/6181 || exit
      printf "GET /startz HTTP/1.0\r\nHost: localhost\r\n\r\n" >&3
      read -r -t 1 _ status _ <&3
      [ "$status" = 503 ] || exit
      [ -n "$told" ] || echo "waiting: another JobManager was just elected, and its jobs do not run yet"
      told=1
      exec 3>&-
      sleep 0.2
    done' 2>/dev/null || true
fi
