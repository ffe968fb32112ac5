# Starts Flink: start-flink <jobmanager|taskmanager> [-D key=value ...]
set -eu
export FLINK_HOME="${FLINK_HOME:-/opt/flink}"
ours=$FLINKHA_CONFIGURATION
rm -rf "$FLINK_CONF_DIR"/*

# The image's configuration first, so that its java options and log configuration stay.
cp -R "$FLINK_HOME"/conf/. "$FLINK_CONF_DIR"
cd "$FLINK_CONF_DIR"
if [ -f flink-conf.yaml ]; then
  # The older format, which Flink 1.20 would read instead of config.yaml: plain lines, made YAML here.
  sed -n "s/#.*//; s/[[:space:]]*\$//; s/'/''/g; s/^\([^:]*\): *\(..*\)\$/\1: '\2'/p" flink-conf.yaml > image.yaml
elif [ -f config.yaml ]; then
  cp config.yaml image.yaml
else
  : > image.yaml
fi
rm -f flink-conf.yaml config.yaml

# Then ours. The last key wins; one that is written in the same way in both is taken out of the image's, because YAML forbids doubles.
awk -F: 'BEGIN { keep = 1 } NR == FNR { ours[$1]; next } /^[^ #-]/ { keep = !($1 in ours) } keep' "$ours"/config.yaml image.yaml > merged.yaml
cat "$ours"/config.yaml >> merged.yaml
for file in "$ours"/*; do
  rm -f "${file##*/}"
  cp "$file" .
done
mv -f merged.yaml config.yaml
rm image.yaml
cd /

component=$1
shift
if [ -x /docker-entrypoint.sh ]; then
  exec /docker-entrypoint.sh "$component" "$@"
fi
exec "$FLINK_HOME/bin/$component.sh" start-foreground "$@"
